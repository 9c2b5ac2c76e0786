-- Notes that an execution starts another one, before that one exists. A repeat changes nothing.
--
-- KEYS  1 record (hash)  2 its children (sorted set)  3 that of the root of its tree
-- ARGV  1 the child's id  2 attempt (0: not fenced)  3 executions below a root at most (0: no limit)  4 TTL (ms)
-- Reply { verdict, detail }; verdict is ok, unknown, ended (and the state), fenced (and the attempt that has it) or full.

local known = redis.call('HMGET', KEYS[1], 'state', 'attempt', 'children')
local state = known[1]
if not state then return {'unknown', ''} end
if state == 'completed' or state == 'failed' or state == 'cancelled' then return {'ended', state} end
if ARGV[2] ~= '0' and ARGV[2] ~= (known[2] or '0') then return {'fenced', known[2] or '0'} end
if redis.call('ZSCORE', KEYS[2], ARGV[1]) then return {'ok', ''} end

-- From here on the record of the root, which may be long gone if its child was detached.
local record = redis.call('HGET', KEYS[3], 'state') and KEYS[3] or KEYS[1]
local below, most = tonumber(redis.call('HGET', record, 'descendants') or 0), tonumber(ARGV[3])
if most > 0 and below >= most then return {'full', ''} end
redis.call('HSET', record, 'descendants', string.format('%d', below + 1))
redis.call('HSET', KEYS[1], 'children', string.format('%d', tonumber(known[3] or 0) + 1))
-- Later than the last by a millisecond at least: those of one millisecond would be in the order of their ids.
local time, last = redis.call('TIME'), redis.call('ZRANGE', KEYS[2], -1, -1, 'WITHSCORES')
local started = math.max(time[1] * 1000 + math.floor(time[2] / 1000), tonumber(last[2] or 0) + 1)
redis.call('ZADD', KEYS[2], string.format('%d', started), ARGV[1])
if tonumber(ARGV[4]) > 0 then redis.call('PEXPIRE', KEYS[2], ARGV[4]) end
return {'ok', ''}
