-- Takes a waiting execution for one worker, atomically: two workers that read the same job cannot both have it.
--
-- KEYS  1 record (hash)
-- ARGV  1 worker id  2 lease ms  3 the agent's max attempts  4 how many of its places for suspects this worker has given
--       away (a suspect is an execution whose worker was lost, and that may be the cause)  5 how many each worker has
-- Reply { verdict, attempt, from seq, lease ends (ms), waited (ms), task, params, metadata, request id, conversation id,
--         cancel, traceparent, tracestate, given (task and params, where the record has them redacted), lost, how long
--         the lost attempt lasted (ms), failed, budget, spent tokens, nanos, calls and ms, its places for suspects }, the
--         fields of the record as they are (empty: missing);
--       verdict is ok, stale (it does not wait for a worker), owned (a live worker took it and is about to start it),
--       lapsed (a worker took it and was lost before it started it) or, with the time now (ms), apart (it may not start
--       yet, or is a suspect, and the places that it takes are not free) or newer (and its format, which is beyond this
--       script).

local record_format = 1
local record = KEYS[1]
local known = redis.call('HMGET', record, 'state', 'attempt', 'owner', 'lease', 'taken', 'notBefore', 'seq', 'ms',
  'lost', 'lostAfter', 'failed', 'format')
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local written = tonumber(string.match(known[12] or '', '^%d+'))
if written and written > record_format then return {'newer', now, written} end
if known[1] ~= 'queued' then return {'stale'} end

-- In a Cluster it may be offered by another clock, which is ahead of this one.
if tonumber(known[6] or 0) > now then return {'apart', now} end
local owner, attempt = known[3] or '', tonumber(known[2] or 0)
local ends = string.format('%d', now + tonumber(ARGV[2]))
-- After its first loss a suspect takes one place; after another, and in its last attempt, all of them.
local lost, failed, places, all_places = tonumber(known[9] or 0), tonumber(known[11] or 0), 0, tonumber(ARGV[5])
if lost > 0 then places = (lost > 1 or lost + failed + 1 >= tonumber(ARGV[3])) and all_places or 1 end
if owner == '' then
  if places > 0 and tonumber(ARGV[4]) + places > all_places then return {'apart', now} end
  -- Whoever ended the last attempt has raised the number already, which fences it; the first attempt is nobody's yet.
  if attempt == tonumber(known[5] or 0) then attempt = attempt + 1 end
  local number = string.format('%d', attempt)
  redis.call('HSET', record, 'attempt', number, 'taken', number, 'from', known[7] or '0', 'maxAttempts', ARGV[3],
    'claimedAt', string.format('%d', now))
elseif owner ~= ARGV[1] then
  return {tonumber(known[4] or 0) > now and 'owned' or 'lapsed'}
end -- else: the reply to this worker's first try was lost, and it asks again for the same attempt

redis.call('HSET', record, 'owner', ARGV[1], 'lease', ends)
-- It waits since it was queued, or an attempt was ended, which was the last to be written; or since it may start.
local waited = now - math.max(tonumber(known[8] or now), tonumber(known[6] or 0))
local job = redis.call('HMGET', record, 'from', 'task', 'params', 'metadata', 'requestId', 'conversationId', 'cancel',
  'traceparent', 'tracestate', 'given')
for i = 2, 10 do job[i] = job[i] or '' end
job[11], job[12], job[13] = known[9] or '', known[10] or '', known[11] or ''
local budget = redis.call('HMGET', record, 'budget', 'spentTokens', 'spentNanos', 'spentCalls', 'spentMs')
for i = 1, 5 do job[13 + i] = budget[i] or '' end
job[19] = places
return {'ok', attempt, tonumber(job[1] or 0), ends, waited, unpack(job, 2, 19)}
