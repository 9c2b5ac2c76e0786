-- Offers an execution to the workers of its agent, unless it is on offer already.
--
-- KEYS  1 the agent's jobs (stream)  2 queued (hash)  3 due (sorted set)
-- ARGV  1 member  2 org  3 user  4 execution  5 look again after (ms)
-- Reply 1 if a job was added, 0 if there is one.

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call('ZADD', KEYS[3], string.format('%d', now + tonumber(ARGV[5])), ARGV[1])
local known = redis.call('HGET', KEYS[2], ARGV[1])
if known and #redis.call('XRANGE', KEYS[1], known, known) > 0 then return 0 end
local id = redis.call('XADD', KEYS[1], '*', 'org', ARGV[2], 'user', ARGV[3], 'execution', ARGV[4])
redis.call('HSET', KEYS[2], ARGV[1], id)
return 1
