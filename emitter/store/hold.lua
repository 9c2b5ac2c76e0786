-- Says that the process which runs an execution is alive: renews the lease of what no worker holds.
--
-- KEYS  1 record (hash)
-- ARGV  1 field: lease (of an emitter, which hears of cancels by this call) or seen (of a client over HTTP)
-- Reply { verdict, lease ends (ms), cancel (JSON or empty) }; verdict is ok, ended (the log is closed) or none (it has not
--       begun yet, has no lease of this kind, or a worker holds it).

local known = redis.call('HMGET', KEYS[1], 'state', 'owner', 'hold', 'cancel')
local state = known[1]
if state == 'completed' or state == 'failed' or state == 'cancelled' then return {'ended', 0, ''} end
if not state or not known[3] or (known[2] or '') ~= '' then return {'none', 0, ''} end

local time = redis.call('TIME')
local ends = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000) + tonumber(known[3])
redis.call('HSET', KEYS[1], ARGV[1], string.format('%d', ends))
return {'ok', ends, known[4] or ''}
