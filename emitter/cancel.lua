-- Asks the worker that owns an execution to cancel it. The first request's words are kept.
-- KEYS  1 record  2 control (channel)   ARGV  1 cancel (JSON)  2 what follows a key in its channel's name
-- Reply { the execution's state, or empty if there is none; 1 if a worker owns it }
local known = redis.call('HMGET', KEYS[1], 'state', 'owner')
local state, is_owned = known[1] or '', (known[2] or '') ~= ''
if is_owned and state ~= 'completed' and state ~= 'failed' and state ~= 'cancelled' then
  redis.call('HSETNX', KEYS[1], 'cancel', ARGV[1])
  redis.call('PUBLISH', KEYS[2] .. ARGV[2], 'cancel')
end
return {state, is_owned and 1 or 0}
