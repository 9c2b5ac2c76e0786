-- Takes a waiting execution for one worker, atomically: two workers that read the same job cannot both have it.
--
-- KEYS  1 record (hash)
-- ARGV  1 worker id  2 lease ms
-- Reply { verdict, attempt, lease ends (ms), task, params, metadata, request id, conversation id, cancel }; verdict is ok,
--       stale (it does not wait for a worker any more) or owned (a live worker took it and is about to start it).

local record = KEYS[1]
local known = redis.call('HMGET', record, 'state', 'attempt', 'owner', 'lease')
if known[1] ~= 'queued' then return {'stale'} end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local owner, attempt = known[3] or '', tonumber(known[2] or 0)
if owner ~= ARGV[1] then
  if owner ~= '' and tonumber(known[4] or 0) > now then return {'owned'} end
  attempt = attempt + 1
end -- else: the reply to this worker's first try was lost, and it asks again for the same attempt

local ends = string.format('%d', now + tonumber(ARGV[2]))
redis.call('HSET', record, 'attempt', string.format('%d', attempt), 'owner', ARGV[1], 'lease', ends)
local job = redis.call('HMGET', record, 'task', 'params', 'metadata', 'requestId', 'conversationId', 'cancel')
return {'ok', attempt, ends, job[1] or '', job[2] or '', job[3] or '', job[4] or '', job[5] or '', job[6] or ''}
