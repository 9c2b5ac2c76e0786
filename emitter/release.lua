-- Gives an execution back to the queue: it waits again, owned by nobody. The attempt stays: the next claim counts on.
--
-- KEYS  1 record (hash)
-- ARGV  1 worker id  2 attempt
-- Reply 1, or 0 when it has ended or another worker or attempt has it.

local record = KEYS[1]
local known = redis.call('HMGET', record, 'state', 'owner', 'attempt')
local state = known[1]
if state == 'completed' or state == 'failed' or state == 'cancelled' then return 0 end
if known[2] ~= ARGV[1] or known[3] ~= ARGV[2] then return 0 end
redis.call('HSET', record, 'state', 'queued', 'owner', '', 'lease', '0')
return 1
