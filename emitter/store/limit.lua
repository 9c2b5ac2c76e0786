-- Sets the limits of an execution for a worker that has just claimed it.
--
-- KEYS  1 record (hash)
-- ARGV  1 attempt  2 limits (JSON)
-- Reply 1; 0 if another attempt has it.

if redis.call('HGET', KEYS[1], 'attempt') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'budget', ARGV[2])
return 1
