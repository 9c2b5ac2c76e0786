-- What the share links of an execution name. It stands in its record, so another execution with the same id has another.
--
-- KEYS  1 record (hash)
-- ARGV  1 a name, if there is none
-- Reply the name; nil if there is no such execution.

local call = redis.call
local known = call('HMGET', KEYS[1], 'state', 'shared')
if not known[1] then return false end
if known[2] then return known[2] end
call('HSET', KEYS[1], 'shared', ARGV[1])
return ARGV[1]
