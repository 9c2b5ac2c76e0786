-- Appends a batch of events to one execution's log, atomically.
--
-- KEYS  1 record (hash)  2 log (stream, channel)  3 feed (stream, channel)  4 feed ordinal  5 index (sorted set)
--       6 control (channel)  7 index of the conversation (sorted set), if the execution begins in one
-- ARGV  1 attempt (0: not fenced)  2 producer (empty: not remembered, never a repeat)
--       3 producer sequence of the first event  4 mode: any, new, existing, unowned, claimed (of exactly this attempt),
--       lapsed (of exactly this attempt, once its worker's lease has ended)
--       5 log maxlen  6 feed maxlen  7 log TTL ms  8 finished log TTL ms  9 tombstone TTL ms
--       10 what publishes the batch on log and feed: PUBLISH, or SPUBLISH in a Cluster
--       11 execution id  12 number of strings of extra record fields, then those, then per event: type, json, mark
--          (marks are described at emitter.wire.append_mark; an event with the mark `-` is not stored, only counted in
--          the producer's sequence)
-- Reply { verdict, last id, events appended, detail }; verdict is ok, or says why the rest was refused: ended, fenced,
--       exists, unknown, owned, answered, noinput, producers. Events before the refused one stand.
--
-- Half of the time of one event alone was Lua's own (tables that grow, closures, short-lived strings), so this makes
-- few of them: tables are born with their usual size, and nothing is a function that runs once.

local call, format = redis.call, string.format
local record, log, feed = KEYS[1], KEYS[2], KEYS[3]
local producer, first, mode = 'p:' .. ARGV[2], tonumber(ARGV[3]), ARGV[4]
local base = 13 + ARGV[12]
local count = (#ARGV - base + 1) / 3

local known = call('HMGET', record, 'state', 'ms', 'seq', producer, 'fresh', 'attempt', 'owner')
local state, ms_text = known[1], known[2]
local seq = tonumber(known[3] or 0)
local last = ms_text and (ms_text .. '-' .. known[3]) or '0-0'

-- A retry after a lost reply: what this producer already wrote is skipped, even after the end.
local skip = 0
if known[4] and known[4] + 1 > first then skip = known[4] - first + 1 end
if skip >= count and count > 0 then return {'ok', last, 0, ''} end
if mode == 'new' and state then return {'exists', last, 0, state} end
if not state and mode ~= 'any' and mode ~= 'new' then return {'unknown', last, 0, ''} end
local owner = known[7] or ''
if mode == 'unowned' and owner ~= '' then return {'owned', last, 0, owner} end
if state == 'completed' or state == 'failed' or state == 'cancelled' then return {'ended', last, 0, state} end
if ARGV[1] ~= '0' and tonumber(ARGV[1]) < tonumber(known[6] or 0) then return {'fenced', last, 0, known[6]} end
-- A record that went back to before the claim, in a failover, waits for another worker: this one must not go on.
local is_exact = mode == 'claimed' or mode == 'lapsed'
if is_exact and ARGV[1] ~= (known[6] or '0') then return {'fenced', last, 0, known[6] or '0'} end
if not known[4] and ARGV[2] ~= '' and seq > 0 and not is_exact and call('HLEN', record) > 4000 then
  return {'producers', last, 0, ''}
end

local time = call('TIME')
local now_text = format('%d%03d', time[1], time[2] / 1000)
local now = tonumber(now_text)
if not ms_text or now > tonumber(ms_text) then ms_text = now_text end -- the clock may step back: ids never do
if mode == 'lapsed' then
  if owner == '' or now < tonumber(call('HGET', record, 'lease') or 0) then return {'owned', last, 0, owner} end
end

local verdict, detail, appended, taken, terminal, takes_over, open = 'ok', '', 0, 0, nil, nil, nil
local lines, to_feed, new_state = {'', nil, nil, nil}, nil, state or 'running'
local trim = tonumber(ARGV[5])

for at = base + skip * 3, #ARGV, 3 do
  local type, json, mark = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  if mark ~= '-' then
    if mark ~= '' and mark ~= 'f' then
      local kind, rest = string.sub(mark, 1, 1), string.sub(mark, 3)
      if kind == 's' then
        new_state = rest
        if rest == 'completed' or rest == 'failed' or rest == 'cancelled' then terminal = json end
      elseif kind == 't' then -- the next attempt takes over; questions of the last one keep their answers
        new_state, takes_over, open = 'queued', rest, ' '
      else -- an input opens (w), or its first answer closes it (r)
        local blank = string.find(rest, ' ', 1, true)
        local id, value = string.sub(rest, 1, blank - 1), string.sub(rest, blank + 1)
        -- `open` lists the inputs that the attempt waits for, each with a blank on both sides
        open = open or call('HGET', record, 'open') or ' '
        local from, to = string.find(open, ' ' .. id .. ' ', 1, true)
        if kind == 'w' then
          call('HSET', record, 'i:' .. id, value)
          if call('HEXISTS', record, 'a:' .. id) == 0 then
            if not from then open = open .. id .. ' ' end
            new_state = 'waiting_input'
          end
        elseif call('HEXISTS', record, 'i:' .. id) == 0 then
          verdict = 'noinput'
          break
        elseif call('HSETNX', record, 'a:' .. id, value) == 0 then
          verdict, detail = 'answered', call('HGET', record, 'a:' .. id)
          break
        else
          if from then open = string.sub(open, 1, from) .. string.sub(open, to + 1) end
          if open == ' ' and new_state == 'waiting_input' then new_state = 'running' end
          call('PUBLISH', KEYS[6], 'answer ' .. id)
        end
      end
    end
    seq = seq + 1
    last = format('%s-%d', ms_text, seq)
    if seq > trim and trim > 0 then
      call('XADD', log, 'MAXLEN', '~', ARGV[5], last, type, json)
    else
      call('XADD', log, last, type, json)
    end
    appended = appended + 1
    lines[appended] = last .. ' ' .. type .. ' ' .. json .. '\n'
    if mark ~= '' then
      if to_feed then to_feed[#to_feed + 1] = at else to_feed = {at} end
    end
  end
  taken = taken + 1
  if terminal then
    for next_mark = at + 5, #ARGV, 3 do
      if ARGV[next_mark] ~= '-' then verdict, detail = 'ended', new_state end
    end
    if verdict == 'ok' then taken = count - skip end
    break
  end
end

local reached = ARGV[2] ~= '' and format('%d', first + skip + taken - 1)
if appended == 0 then
  if taken > 0 and reached and state then call('HSET', record, producer, reached) end
  return {verdict, last, 0, detail}
end

local changes = {'ms', ms_text, 'seq', format('%d', seq)}
if reached then
  changes[5], changes[6] = producer, reached
end
for i = 13, base - 1 do changes[#changes + 1] = ARGV[i] end
if new_state ~= state then
  changes[#changes + 1] = 'state'
  changes[#changes + 1] = new_state
end
if open then
  changes[#changes + 1] = 'open'
  changes[#changes + 1] = open
end
if takes_over then
  local attempt = math.max(tonumber(takes_over), tonumber(known[6] or 0))
  for _, text in ipairs({'attempt', format('%d', attempt), 'owner', '', 'lease', '0'}) do changes[#changes + 1] = text end
end
if terminal then
  for _, text in ipairs({'end', terminal, 'owner', ''}) do changes[#changes + 1] = text end
end
-- Expiries are renewed now and then, not at every append: four calls saved for most batches.
local ttl = tonumber(ARGV[7])
local stale = terminal or not known[5] or (ttl > 0 and now - known[5] > ttl / 64)
if stale then
  changes[#changes + 1] = 'fresh'
  changes[#changes + 1] = now_text
end
call('HSET', record, unpack(changes))
if terminal then call('HDEL', record, 'given') end -- credentials that only the agent may have

if not state then
  call('ZADD', KEYS[5], ms_text, ARGV[11])
  call('ZREMRANGEBYRANK', KEYS[5], 0, -10001)
  if KEYS[7] then
    call('ZADD', KEYS[7], ms_text, ARGV[11])
    call('ZREMRANGEBYRANK', KEYS[7], 0, -1001)
    if ttl > 0 then call('PEXPIRE', KEYS[7], ttl + tonumber(ARGV[9])) end
  end
end

local feed_lines = nil
if to_feed then
  feed_lines = {'', nil, nil, nil}
  local ordinal = call('INCRBY', KEYS[4], #to_feed) - #to_feed
  for i, at in ipairs(to_feed) do
    local type, json = ARGV[at], ARGV[at + 1]
    local id = format('%s-%d', now_text, ordinal + i)
    local added = redis.pcall('XADD', feed, 'MAXLEN', '~', ARGV[6], id, type, json)
    if added.err then -- the clock stepped back behind the feed's last id
      local tail = call('XREVRANGE', feed, '+', '-', 'COUNT', 1)
      now_text = string.match(tail[1][1], '^(%d+)-')
      id = format('%s-%d', now_text, ordinal + i)
      call('XADD', feed, 'MAXLEN', '~', ARGV[6], id, type, json)
    end
    feed_lines[i] = id .. ' ' .. type .. ' ' .. json .. '\n'
  end
end

if stale then
  local log_ttl, tombstone = terminal and tonumber(ARGV[8]) or ttl, tonumber(ARGV[9])
  if log_ttl > 0 then
    call('PEXPIRE', log, log_ttl)
    call('PEXPIRE', record, log_ttl + tombstone)
  end
  if ttl > 0 then
    call('PEXPIRE', KEYS[5], ttl + tombstone)
    call('PEXPIRE', feed, ttl)
    call('PEXPIRE', KEYS[4], ttl)
  end
end

call(ARGV[10], log, appended == 1 and lines[1] or table.concat(lines))
if feed_lines then call(ARGV[10], feed, #to_feed == 1 and feed_lines[1] or table.concat(feed_lines)) end
return {verdict, last, appended, detail}
