-- Appends a batch of events to one execution's log, atomically.
--
-- KEYS  1 record (hash)  2 log (stream, channel)  3 feed (stream, channel)  4 feed ordinal  5 index (sorted set)
--       6 control (channel)
-- ARGV  1 attempt (0: not fenced)  2 producer (empty: not remembered, never a repeat)  3 producer sequence of the first event  4 mode: any, new, existing, unowned
--       5 log maxlen  6 feed maxlen  7 log TTL ms  8 finished log TTL ms  9 tombstone TTL ms  10 PUBLISH or SPUBLISH
--       11 execution id  12 number of strings of extra record fields, then those, then per event: type, json, mark
--          (marks are described at emitter.wire.append_mark)
-- Reply { verdict, last id, events appended, detail }; verdict is ok, or says why the rest was refused: ended, fenced,
--       exists, unknown, owned, answered, noinput, producers. Events before the refused one stand.

local record, log, feed = KEYS[1], KEYS[2], KEYS[3]
local attempt, producer, first, mode = tonumber(ARGV[1]), 'p:' .. ARGV[2], tonumber(ARGV[3]), ARGV[4]
local log_maxlen, feed_maxlen = tonumber(ARGV[5]), tonumber(ARGV[6])
local base = 13 + tonumber(ARGV[12])
local count = (#ARGV - base + 1) / 3

local known = redis.call('HMGET', record, 'state', 'attempt', 'ms', 'seq', producer, 'owner', 'fresh')
local state = known[1]
local ms, seq = tonumber(known[3] or 0), tonumber(known[4] or 0)
local last = known[3] and (known[3] .. '-' .. known[4]) or '0-0'

-- A retry after a lost reply: what this producer already wrote is skipped, even after the end.
local skip = math.max(0, tonumber(known[5] or 0) - first + 1)
if skip >= count and count > 0 then return {'ok', last, 0, ''} end
if mode == 'new' and state then return {'exists', last, 0, state} end
if mode == 'existing' and not state then return {'unknown', last, 0, ''} end
if mode == 'unowned' and (known[6] or '') ~= '' then return {'owned', last, 0, known[6]} end
if state == 'completed' or state == 'failed' or state == 'cancelled' then return {'ended', last, 0, state} end
if attempt > 0 and attempt < tonumber(known[2] or 0) then return {'fenced', last, 0, known[2]} end
if not known[5] and ARGV[2] ~= '' and seq > 0 and redis.call('HLEN', record) > 4000 then return {'producers', last, 0, ''} end

local time = redis.call('TIME')
local now_text = time[1] .. string.format('%03d', math.floor(time[2] / 1000))
local now = tonumber(now_text)
local ms_text = now_text
if now < ms then ms_text = known[3] end -- the clock stepped back: ids never do

local changes = {}
local function change(name, value)
  changes[#changes + 1] = name
  changes[#changes + 1] = value
end
for i = 13, base - 1, 2 do change(ARGV[i], ARGV[i + 1]) end

local verdict, detail, appended, terminal = 'ok', '', 0, false
local lines, to_feed, new_state = {}, {}, state or 'running'

-- The one answer of an input: refused unless the input was asked for and is still open.
local function answer(id, value)
  if redis.call('HEXISTS', record, 'i:' .. id) == 0 then return 'noinput', '' end
  if redis.call('HSETNX', record, 'a:' .. id, value) == 0 then
    return 'answered', redis.call('HGET', record, 'a:' .. id)
  end
  if redis.call('HINCRBY', record, 'open', -1) <= 0 then new_state = 'running' end
  redis.call(ARGV[10], KEYS[6], 'answer ' .. id)
  return 'ok', ''
end

for i = skip, count - 1 do
  local at = base + i * 3
  local type, json, mark = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local kind = string.sub(mark, 1, 1)
  if kind == 's' then
    new_state = string.sub(mark, 3)
    terminal = new_state == 'completed' or new_state == 'failed' or new_state == 'cancelled'
  elseif kind == 'w' or kind == 'r' then
    local blank = string.find(mark, ' ', 3, true)
    local id, value = string.sub(mark, 3, blank - 1), string.sub(mark, blank + 1)
    if kind == 'r' then
      verdict, detail = answer(id, value)
      if verdict ~= 'ok' then break end
    elseif redis.call('HSETNX', record, 'i:' .. id, value) == 1 then
      redis.call('HINCRBY', record, 'open', 1)
      new_state = 'waiting_input'
    end
  end
  seq = seq + 1
  last = ms_text .. '-' .. string.format('%d', seq)
  if seq > log_maxlen and log_maxlen > 0 then
    redis.call('XADD', log, 'MAXLEN', '~', log_maxlen, last, type, json)
  else
    redis.call('XADD', log, last, type, json)
  end
  lines[#lines + 1] = last .. ' ' .. type .. ' ' .. json .. '\n'
  appended = appended + 1
  if kind ~= '' then to_feed[#to_feed + 1] = at end
  if terminal then
    change('end', json)
    change('owner', '')
    if i < count - 1 then verdict, detail = 'ended', new_state end
    break
  end
end

if appended == 0 then return {verdict, last, 0, detail} end

change('ms', ms_text)
change('seq', string.format('%d', seq))
if ARGV[2] ~= '' then change(producer, string.format('%d', first + skip + appended - 1)) end
if new_state ~= state then change('state', new_state) end

local ttl, log_ttl = tonumber(ARGV[7]), tonumber(ARGV[7])
if terminal then log_ttl = tonumber(ARGV[8]) end
-- Expiries are renewed now and then, not at every append: four calls saved for most batches.
local stale = ttl > 0 and (terminal or not known[7] or now - tonumber(known[7]) > ttl / 64)
if stale then change('fresh', now_text) end
redis.call('HSET', record, unpack(changes))

if not state then
  redis.call('ZADD', KEYS[5], ms_text, ARGV[11])
  redis.call('ZREMRANGEBYRANK', KEYS[5], 0, -10001)
end

local feed_lines = {}
if #to_feed > 0 then
  local ordinal = redis.call('INCRBY', KEYS[4], #to_feed) - #to_feed
  for i, at in ipairs(to_feed) do
    local id = now_text .. '-' .. string.format('%d', ordinal + i)
    local added = redis.pcall('XADD', feed, 'MAXLEN', '~', feed_maxlen, id, ARGV[at], ARGV[at + 1])
    if added.err then -- the clock stepped back behind the feed's last id
      local tail = redis.call('XREVRANGE', feed, '+', '-', 'COUNT', 1)
      now_text = string.match(tail[1][1], '^(%d+)-')
      id = now_text .. '-' .. string.format('%d', ordinal + i)
      redis.call('XADD', feed, 'MAXLEN', '~', feed_maxlen, id, ARGV[at], ARGV[at + 1])
    end
    feed_lines[i] = id .. ' ' .. ARGV[at] .. ' ' .. ARGV[at + 1] .. '\n'
  end
end

if stale then
  local tombstone = tonumber(ARGV[9])
  redis.call('PEXPIRE', log, log_ttl)
  redis.call('PEXPIRE', record, log_ttl + tombstone)
  redis.call('PEXPIRE', KEYS[5], ttl + tombstone)
  redis.call('PEXPIRE', feed, ttl)
  redis.call('PEXPIRE', KEYS[4], ttl)
end

redis.call(ARGV[10], log, table.concat(lines))
if #feed_lines > 0 then redis.call(ARGV[10], feed, table.concat(feed_lines)) end
return {verdict, last, appended, detail}
