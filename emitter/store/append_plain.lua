-- Appends plain events (mark empty: chunks of text, progress of tools) of several producers, each to its log. Plain
-- batches are most of all, and this costs Redis half of `append.lua`.
--
-- KEYS  1 record (hash)  2 log (stream, channel)  then those of the next batch, and so on
-- ARGV  per batch: attempt (0: not fenced; n: exactly this one; -n: none older than n), producer, producer sequence of
--       the first event, number of events, then type and JSON of each
-- Reply per batch: events appended; 0: nothing was done, and `append.lua` must decide. That is so unless the log goes on
--       where this producer left it, and for every rare case: a log that has ended or was taken over, one whose expiries
--       must be renewed, or of which a part of its bytes ends. Then no later batch of that log is appended either: it
--       would overtake.
--
-- Before this text stand its constants: maxlen, part_bytes, fresh_ms, publish, suffix (`emitter.store.plain`).

local call, format = redis.call, string.format
local time = call('TIME')
local now_text = format('%d%03d', time[1], time[2] / 1000)
local now, digits = tonumber(now_text), #now_text
local reply, at, refused = {}, 1, nil

for number = 1, #KEYS / 2 do
  local record, log, count = KEYS[number * 2 - 1], KEYS[number * 2], tonumber(ARGV[at + 3])
  local producer = 'p:' .. ARGV[at + 1]
  local first_event, after = at + 4, at + 4 + count * 2
  local known = call('HMGET', record, 'state', 'ms', 'seq', producer, 'fresh', 'bytes', 'attempt')
  local state, ms_text, reached, bytes = known[1], known[2], known[4], tonumber(known[6])
  local appended, lines, fence = 0, {}, ARGV[at]
  if reached and reached + 1 == tonumber(ARGV[at + 2]) and bytes and #ms_text == digits
    and not (refused and refused[record])
    and state ~= 'completed' and state ~= 'failed' and state ~= 'cancelled'
    and (fence == '0' or fence == known[7] or (tonumber(fence) < 0 and -fence >= tonumber(known[7] or 0)))
    and known[5] and now - known[5] <= fresh_ms then
    local part_ends = part_bytes > 0 and bytes - bytes % part_bytes + part_bytes or math.huge
    for event = first_event + 1, after - 1, 2 do bytes = bytes + #ARGV[event] end
    if bytes < part_ends then
      if now_text > ms_text then ms_text = now_text end -- the clock may step back: ids never do
      local seq, last = tonumber(known[3]), nil
      for event = first_event, after - 1, 2 do
        seq = seq + 1
        last = ms_text .. '-' .. format('%d', seq)
        local type, json = ARGV[event], ARGV[event + 1]
        if maxlen > 0 and seq > maxlen and seq % 16 == 0 then -- only whole nodes of about 100 events go
          call('XADD', log, 'MAXLEN', '~', maxlen, last, type, json)
        else
          call('XADD', log, last, type, json)
        end
        appended = appended + 1
        lines[appended] = last .. ' ' .. type .. ' ' .. json .. '\n'
      end
      call('HSET', record, 'ms', ms_text, 'seq', format('%d', seq), producer, format('%d', reached + count),
        'bytes', format('%d', bytes))
      call(publish, log .. suffix, appended == 1 and lines[1] or table.concat(lines))
    end
  end
  if appended == 0 then
    refused = refused or {}
    refused[record] = true
  end
  reply[number], at = appended, after
end
return reply
