-- Renews a worker's lease on an execution, and returns a requested cancel.
--
-- KEYS  1 record (hash)
-- ARGV  1 worker id  2 attempt  3 lease ms
-- Reply { verdict, lease ends (ms), cancel (JSON or empty), spent tokens, nanos and calls (empty: none) }; verdict
--       is ok, ended (the log is closed), lost (another worker or attempt has it) or away (the record is of a newer
--       format: a worker over HTTP has claimed it by a newer edge, which renews it).

local record, record_format = KEYS[1], 1
local known = redis.call('HMGET', record, 'state', 'owner', 'attempt', 'cancel', 'spentTokens',
  'spentNanos', 'spentCalls', 'format')
local written = tonumber(string.match(known[8] or '', '^%d+'))
if written and written > record_format then return {'away', '0', '', '', '', ''} end
local state = known[1]
if state == 'completed' or state == 'failed' or state == 'cancelled' then return {'ended', '0', '', '', '', ''} end
if known[2] ~= ARGV[1] or known[3] ~= ARGV[2] then return {'lost', '0', '', '', '', ''} end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local ends = string.format('%d', now + tonumber(ARGV[3]))
redis.call('HSET', record, 'lease', ends)
return {'ok', ends, known[4] or '', known[5] or '', known[6] or '', known[7] or ''}
