-- Asks the worker that owns an execution to cancel it, or the process that holds it. The first request's words are kept.
-- KEYS  1 record  2 control (channel)   ARGV  1 cancel (JSON)  2 what follows a key in its channel's name
-- Reply { the execution's state, or empty if there is none; 1 if a worker owns it or a process holds it; the time now (ms)
--         if it is a process }
local known = redis.call('HMGET', KEYS[1], 'state', 'owner', 'hold', 'lease')
local state, is_owned = known[1] or '', (known[2] or '') ~= ''
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local is_held = not is_owned and known[3] and state ~= 'queued' and tonumber(known[4] or 0) > now
is_owned = is_owned or is_held
if is_owned and state ~= 'completed' and state ~= 'failed' and state ~= 'cancelled' then
  if redis.call('HSETNX', KEYS[1], 'cancel', ARGV[1]) == 1 and is_held then
    redis.call('HSET', KEYS[1], 'cancelAt', string.format('%d', now))
  end
  redis.call('PUBLISH', KEYS[2] .. ARGV[2], 'cancel')
end
return {state, is_owned and 1 or 0, is_held and now or 0}
