-- Decides about streams that one user wants to open on one edge, and keeps the count of those that are open.
--
-- KEYS  1 rate (string: theoretical arrival time in µs)  2 connections (hash: edge id -> "<count> <expires ms>")
-- ARGV  1 edge id  2 open streams of this user on this edge, before  3 streams asked for (0: only report the count)
--       4 streams of a user over all edges (0: no limit, nothing counted)  5 per minute (0: no limit)
--       6 lifetime of a count in ms
-- Reply { granted, reason why not all ('' connections rate), milliseconds until the rate allows one more }

local own, asked = tonumber(ARGV[2]), tonumber(ARGV[3])
local limit, per_minute, lifetime = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local now_ms = math.floor(now / 1000)
local granted, reason, retry = asked, '', 0

if limit > 0 and asked > 0 then
  local open = own
  local counts = redis.call('HGETALL', KEYS[2])
  for i = 1, #counts, 2 do
    if counts[i] ~= ARGV[1] then
      local count, expires = string.match(counts[i + 1], '^(%d+) (%d+)$')
      -- What expires later than anything written now would is from before the clock stepped back.
      if count and tonumber(expires) > now_ms and tonumber(expires) <= now_ms + lifetime then
        open = open + tonumber(count)
      else
        redis.call('HDEL', KEYS[2], counts[i]) -- that edge died
      end
    end
  end
  local room = math.max(0, limit - open)
  if room < granted then granted, reason = room, 'connections' end
end

-- GCRA: one number, the time at which all that was granted so far would be paid off at the steady rate. It may lie as
-- much as one burst (a minute's worth) ahead. Whole microseconds, so that a burst is exactly as many as it says.
if per_minute > 0 and granted > 0 then
  local interval = math.floor(60000000 / per_minute)
  local burst = interval * per_minute
  local stored = tonumber(redis.call('GET', KEYS[1]) or 0)
  local arrival = math.max(now, stored)
  if arrival > now + burst then -- the clock stepped back
    arrival = now + burst
    redis.call('SET', KEYS[1], string.format('%.0f', arrival), 'PX', math.ceil(burst / 1000))
  end
  local room = math.max(0, math.floor((now + burst - arrival) / interval))
  if room < granted then granted, reason = room, 'rate' end
  arrival = arrival + granted * interval
  if granted > 0 then
    redis.call('SET', KEYS[1], string.format('%.0f', arrival), 'PX', math.ceil((arrival - now) / 1000))
  end
  if reason == 'rate' then retry = math.ceil((arrival + interval - burst - now) / 1000) end
end

if limit > 0 then
  local count = own + granted
  if count > 0 then
    redis.call('HSET', KEYS[2], ARGV[1], string.format('%d %.0f', count, now_ms + lifetime))
    redis.call('PEXPIRE', KEYS[2], lifetime)
  else
    redis.call('HDEL', KEYS[2], ARGV[1])
  end
end

return {granted, reason, retry}
