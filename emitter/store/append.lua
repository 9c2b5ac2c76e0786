-- Appends a batch of events to one execution's log, atomically.
--
-- KEYS  1 record (hash)  2 log (stream, channel)  3 feed (stream, channel)  4 feed ordinal  5 index (sorted set)
--       6 control (channel)  7 index of the conversation (sorted set), if the execution begins in one
-- ARGV  1 attempt (0: not fenced)  2 producer (empty: not remembered, never a repeat)
--       3 producer sequence of the first event; negative: the producer holds events before it, in case a failover has
--       lost them  4 mode: any, new, existing, unowned, claimed (of exactly this attempt; followed by a blank and a
--       worker: while that one has it), lapsed (of exactly this attempt, once its worker's lease has ended, or that of
--       the process which runs it)
--       5 log maxlen  6 feed maxlen  7 log TTL ms  8 finished log TTL ms  9 tombstone TTL ms
--       10 what publishes the batch on log and feed: PUBLISH, or SPUBLISH in a Cluster
--       11 what follows a key in its channel's name  12 execution id  13 open inputs at most (0: no limit)
--       14 a sixteenth of the bytes of the log (0: no limit)
--       15 number of strings of extra record fields, then those, then per event: type, json, mark
--          (marks are described at emitter.wire.append_mark; an event with the mark `-` is not stored, only counted in
--          the producer's sequence)
-- Reply { verdict, last id, events of the batch that were appended, detail }; verdict is ok, or says why the rest was
--       refused: ended, fenced, exists, unknown, newer, owned, answered, noinput, inputs, known, messages, nomessage,
--       taken, lost. Events before the refused one stand. The detail of ok is `<tokens> <nanos> <calls> <budget>` if the
--       batch has spent something: what the record has of it then; that of lost is the producer's last sequence in it.
--
-- Inputs: `open` lists the ids of those that the attempt waits for, `void` those that the last attempt waited for, each
-- with a blank on both sides. `i:<id>` is a question without an answer, `a:<id>` an answer. `answers` has the number of
-- the oldest answer that is kept, of the newest, and the bytes of all; `n:<number>` is the id of one. An attempt may
-- wait for 1 MiB of questions; the newest 1,000 answers are kept, of 4 MiB.
-- Messages of people: `m:<id>` is one, `g:<id>` its data before redaction (until the end), `o:<number>` the id of one,
-- `y:<id>` the last attempt that took it, `x:<id>` why it was dropped. `inbox` lists the ids that an attempt has not
-- taken, each with a blank on both sides; `messages` has the number of all, their bytes, and that attempt: for a later
-- one, all are in `inbox` again that were not dropped. `take` is the last take: attempt, name, ids. What is in `inbox` at
-- the end is dropped by events before the terminal one. 1,000 messages are kept, of 4 MiB.
-- Producers: `p:<name>` is the last number of each. `q:<place>` puts those that came after the first into a line, by
-- name and number; `producers` is the last place. The record knows 4,000 of them.
-- Budget: `spentMs` counts the time of attempts under a worker, until the end of a lost one's lease. Where the record has
-- a `budget` or a `root`, `spentTokens`, `spentNanos` (cost, in billionths of a US dollar) and `spentCalls` (of tools)
-- count the events with marks `u` and `c`. `u:<name>` are a producer's highest totals of usage: what they rise by is
-- counted. It is added to the record of `root` as well, the first of a tree of executions. `s:<limit>.<action>`: the log
-- has this `budget`.
-- Bytes: `bytes` counts what was ever appended. The log is cut where a part of it (a sixteenth of the limit) began:
-- `b:<n>` are the ids of the last 16 of those places.
--
-- Webhooks: `hooks` says which types somebody waits for, and whom to wake (`emitter.wire.webhooks.Wake`).
--
-- Format: a record says by which rules it was written. One of a newer format is refused (newer), once to each producer.
-- emitter/wire/record.py has the fields, and says what may meet what.
--
-- Half of the time of one event alone was Lua's own (tables that grow, closures, short-lived strings), so this makes
-- few of them: tables are born with their usual size, and nothing is a function that runs once.

local record_format = 1
local call, format = redis.call, string.format
local record, log, feed = KEYS[1], KEYS[2], KEYS[3]
local producer, first, mode = 'p:' .. ARGV[2], math.abs(ARGV[3]), ARGV[4]
local suffix, base, worker = ARGV[11], 16 + ARGV[15], nil
if string.sub(mode, 1, 8) == 'claimed ' then mode, worker = 'claimed', string.sub(mode, 9) end
local count = (#ARGV - base + 1) / 3

local known = call('HMGET', record, 'state', 'ms', 'seq', producer, 'fresh', 'attempt', 'owner', 'bytes', 'hooks')
local state, ms_text = known[1], known[2]
local seq = tonumber(known[3] or 0)
local is_first = seq == 0
local last = ms_text and (ms_text .. '-' .. known[3]) or '0-0'

-- A retry after a lost reply: what this producer already wrote is skipped, even after the end.
local skip = 0
if known[4] and known[4] + 1 > first then skip = known[4] - first + 1 end
if skip >= count and count > 0 then return {'ok', last, 0, ''} end
if mode == 'new' and state then return {'exists', last, 0, state} end
if not state and mode ~= 'any' and mode ~= 'new' then return {'unknown', last, 0, ''} end
if state and not known[4] then -- who has appended before was let in then
  local written = tonumber(string.match(call('HGET', record, 'format') or '', '^%d+'))
  if written and written > record_format then return {'newer', last, 0, format('%d', written)} end
end
local owner = known[7] or ''
if mode == 'unowned' and owner ~= '' then return {'owned', last, 0, owner} end
if state == 'completed' or state == 'failed' or state == 'cancelled' then return {'ended', last, 0, state} end
if ARGV[1] ~= '0' and tonumber(ARGV[1]) < tonumber(known[6] or 0) then return {'fenced', last, 0, known[6]} end
-- A record that went back to before the claim, in a failover, waits for another worker: this one must not go on.
local is_exact = mode == 'claimed' or mode == 'lapsed'
if is_exact and ARGV[1] ~= (known[6] or '0') then return {'fenced', last, 0, known[6] or '0'} end
-- So it does if the number is that of the claim already, because the end of the attempt before has raised it.
if mode == 'claimed' and ARGV[1] ~= '0' and state == 'queued' and owner == ''
  and call('HEXISTS', record, 'hold') == 0 then
  return {'fenced', last, 0, known[6]}
end
-- A worker that has claimed it since got the same number.
if worker and worker ~= owner then return {'fenced', last, 0, known[6] or '0'} end
-- A failover has lost events that the producer still holds. Of a producer that it does not know, the record has perhaps
-- forgotten the number only.
if string.byte(ARGV[3]) == 45 and (known[4] or 0) + 1 < first
  and (known[4] or tonumber(call('HGET', record, 'producers') or 0) < 4000) then
  return {'lost', last, 0, known[4] or '0'}
end

local time = call('TIME')
local now_text = format('%d%03d', time[1], time[2] / 1000)
local now = tonumber(now_text)
if not ms_text or now > tonumber(ms_text) then ms_text = now_text end -- the clock may step back: ids never do
if mode == 'lapsed' or (mode == 'unowned' and state ~= 'queued') then
  local lease = call('HMGET', record, 'lease', 'hold', 'seen')
  local ends, hold = tonumber(lease[1] or 0), lease[2]
  if mode == 'unowned' then -- the process that runs it is alive: it is asked first
    if hold and now < ends then return {'owned', last, 0, 'no worker'} end
  elseif owner ~= '' or hold then
    if owner == '' then ends = math.max(ends, tonumber(lease[3] or 0), tonumber(known[2] or 0) + hold) end
    if now < ends then return {'owned', last, 0, owner} end
  else
    return {'owned', last, 0, owner}
  end
end

local verdict, detail, appended, taken, terminal, takes_over = 'ok', '', 0, 0, nil, nil
local open, void, open_count, open_bytes, swept, oldest, newest, answer_bytes = nil, nil, nil, nil, nil, nil, nil, nil
local lists, inbox, number, size, inbox_of, take = nil, nil, nil, nil, nil, nil
local dropped, own = nil, 0 -- fields that leave the record in the end; events that the script itself adds
local lines, to_feed, new_state = {'', nil, nil, nil}, nil, state or 'running'
local trim = tonumber(ARGV[5])
local tool_calls, total_tokens, total_nanos = 0, -1, 0 -- of this batch
local counted, root = nil, '' -- the budget, if what is spent is counted; false: it is not
-- A log that was begun before bytes were counted stays uncounted.
local bytes, next_part, part_bytes = tonumber(known[8] or is_first and 0) or -math.huge, math.huge, tonumber(ARGV[14])
if part_bytes > 0 and bytes >= 0 then next_part = bytes - bytes % part_bytes + part_bytes end

local at, final = base + skip * 3, #ARGV
while at <= final do
  local type, json, mark = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  if type == 'budget' then
    local said = 's:' .. string.sub(mark, 3)
    if call('HEXISTS', record, said) == 1 then mark = '-' else call('HSET', record, said, '1') end
  end
  if mark ~= '-' then
    if mark ~= '' and mark ~= 'f' and mark ~= 'd' then
      local kind, rest = string.sub(mark, 1, 1), string.sub(mark, 3)
      local is_end = kind == 's' and (rest == 'completed' or rest == 'failed' or rest == 'cancelled')
      if kind == 'c' or kind == 'u' then
        if counted == nil then
          local known_limits = call('HMGET', record, 'budget', 'root')
          counted, root = known_limits[1], known_limits[2] or ''
          for i = 16, base - 1, 2 do -- it may begin with this batch
            if ARGV[i] == 'budget' then counted = ARGV[i + 1] elseif ARGV[i] == 'root' then root = ARGV[i + 1] end
          end
          counted = counted or (root ~= '' and '')
        end
        if counted and kind == 'c' then
          tool_calls = tool_calls + 1
        elseif counted then
          local tokens, nanos = string.match(rest, '^(%d+) (%d+)$')
          total_tokens, total_nanos = math.max(total_tokens, tonumber(tokens)), math.max(total_nanos, tonumber(nanos))
        end
      elseif kind == 's' and not is_end then
        new_state = rest
      elseif is_end or kind == 'm' or kind == 'y' or kind == 'x' then
        if not lists then lists = call('HMGET', record, 'open', 'void', 'messages', 'inbox') end
        local blank = string.find(rest, ' ', 1, true) or 0
        local id, value = string.sub(rest, 1, blank - 1), string.sub(rest, blank + 1)
        if not number and (lists[3] or not is_end) then
          number, size, inbox_of = string.match(lists[3] or '0 0 0', '(%d+) (%d+) (%d+)')
          number, size, inbox_of, inbox = tonumber(number), tonumber(size), tonumber(inbox_of), lists[4] or ' '
          local current = math.max(tonumber(known[6] or 0), kind == 'y' and tonumber(id) or 0)
          if current > inbox_of then -- a later attempt takes all of them again
            local all = {' ', nil, nil, nil}
            for place = 1, number do
              local other = call('HGET', record, format('o:%d', place))
              if other and call('HEXISTS', record, 'x:' .. other) == 0 then all[#all + 1] = other .. ' ' end
            end
            inbox, inbox_of = table.concat(all), current
          end
        end
        if is_end then
          local left = {}
          if inbox and not terminal then
            for other in string.gmatch(inbox, '%S+') do left[#left + 1] = other end
          end
          terminal = json
          if #left > 0 then -- events come before this one; then it has its turn again
            local shift = 3 * #left
            for place = final, at, -1 do ARGV[place + shift] = ARGV[place] end
            for place = 1, #left do
              local put = at + 3 * place - 3
              ARGV[put], ARGV[put + 2] = 'user:message:dropped', 'd'
              ARGV[put + 1] = format(
                '{"type":"user:message:dropped","executionId":"%s","ts":%s,"data":{"messageId":"%s","reason":"ended"}}',
                ARGV[12], now_text, left[place])
            end
            final, own = final + shift, #left
            type, json, mark = ARGV[at], ARGV[at + 1], 'd'
          else
            new_state = rest
          end
        elseif kind == 'm' then
          local most, body = string.match(value, '^(%d+) (.*)$')
          local given = ARGV[15] ~= '0' and ARGV[16] == 'g:' .. id and ARGV[17] or '' -- before redaction
          if call('HEXISTS', record, 'm:' .. id) == 1 then
            verdict = 'known'
            break
          end
          local _, waiting = string.gsub(inbox, '%S+', '')
          if tonumber(most) > 0 and waiting >= tonumber(most) then
            waiting = 0 -- what an earlier attempt has taken does not count
            for other in string.gmatch(inbox, '%S+') do waiting = waiting + 1 - call('HEXISTS', record, 'y:' .. other) end
          end
          number, size = number + 1, size + #body + #given
          if number > 1000 or size > 4194304 or (tonumber(most) > 0 and waiting >= tonumber(most)) then
            verdict, detail = 'messages', (number > 1000 or size > 4194304) and '0' or most
            break
          end
          call('HSET', record, 'm:' .. id, format('%s-%d ', ms_text, seq + 1) .. body, format('o:%d', number), id)
          inbox = inbox .. id .. ' '
          call('PUBLISH', KEYS[6] .. suffix, 'message')
        elseif kind == 'y' then
          local left, listed = inbox, string.match(value, ' (.*)$') or ''
          if tonumber(id) < inbox_of then
            verdict, detail = 'fenced', format('%d', inbox_of)
            break
          end
          for other in string.gmatch(listed, '%S+') do
            local from, to = string.find(left, ' ' .. other .. ' ', 1, true)
            if not from then
              verdict, detail = 'nomessage', other
              break
            end
            left = string.sub(left, 1, from) .. string.sub(left, to + 1)
          end
          if verdict ~= 'ok' then break end
          for other in string.gmatch(listed, '%S+') do call('HSET', record, 'y:' .. other, id) end
          inbox, take = left, rest
        else
          local from, to = string.find(inbox, ' ' .. id .. ' ', 1, true)
          local is_taken = call('HEXISTS', record, 'y:' .. id) == 1
          if is_taken or not from then
            verdict, detail = is_taken and 'taken' or 'nomessage', id
            break
          end
          inbox = string.sub(inbox, 1, from) .. string.sub(inbox, to + 1)
          call('HSET', record, 'x:' .. id, value)
        end
      elseif kind ~= 'b' then
        if not lists then lists = call('HMGET', record, 'open', 'void', 'messages', 'inbox') end
        if not open then open, void, dropped = lists[1] or ' ', lists[2] or ' ', {} end
        local blank = string.find(rest, ' ', 1, true) or 0
        local id, value = string.sub(rest, 1, blank - 1), string.sub(rest, blank + 1)
        local spaced = ' ' .. id .. ' '
        local from, to = string.find(open, spaced, 1, true)
        if kind == 't' then -- the next attempt takes over; questions of the last one still take their answers
          new_state, takes_over = 'queued', rest
          if open ~= ' ' then
            for other in string.gmatch(void, '%S+') do dropped['i:' .. other] = true end
            open, void, open_count = ' ', open, nil
          end
        elseif kind == 'w' then -- an input opens, unless it has its answer
          if call('HEXISTS', record, 'a:' .. id) == 0 then
            local most, is_new = tonumber(ARGV[13]), from and 0 or 1
            local more = #value - #(from and call('HGET', record, 'i:' .. id) or '')
            if not open_count then
              open_count, open_bytes = 0, 0
              for other in string.gmatch(open, '%S+') do
                open_count, open_bytes = open_count + 1, open_bytes + #(call('HGET', record, 'i:' .. other) or '')
              end
            end
            if most > 0 and (open_count + is_new > most or open_bytes + more > 1048576) then
              -- Those whose time is over make room, if nobody has closed them. `expiresAt` is a question's last field.
              for other in string.gmatch(swept and '' or open, '%S+') do
                local question = call('HGET', record, 'i:' .. other) or ''
                local ends = string.match(question, '"expiresAt":(%d+)}$')
                if ends and tonumber(ends) < now and other ~= id then
                  local at_blank, last_blank = string.find(open, ' ' .. other .. ' ', 1, true)
                  open = string.sub(open, 1, at_blank) .. string.sub(open, last_blank + 1)
                  open_count, open_bytes, dropped['i:' .. other] = open_count - 1, open_bytes - #question, true
                end
              end
              swept = true
              local count = open_count + is_new
              if count > most or (open_bytes + more > 1048576 and count > 1) then
                verdict, detail = 'inputs', ARGV[13]
                break
              end
            end
            call('HSET', record, 'i:' .. id, value)
            dropped['i:' .. id] = nil
            open_count, open_bytes = open_count + is_new, open_bytes + more
            if not from then
              open = open .. id .. ' '
              from, to = string.find(void, spaced, 1, true)
              if from then void = string.sub(void, 1, from) .. string.sub(void, to + 1) end
            end
            new_state = 'waiting_input'
          end
        else -- the first answer closes an input (r)
          local answer = call('HGET', record, 'a:' .. id)
          if answer then
            verdict, detail = 'answered', answer
            break
          elseif dropped['i:' .. id] or call('HEXISTS', record, 'i:' .. id) == 0 then
            verdict = 'noinput'
            break
          end
          if not oldest then
            oldest, newest, answer_bytes = string.match(call('HGET', record, 'answers') or '1 0 0', '(%d+) (%d+) (%d+)')
          end
          newest, answer_bytes = newest + 1, answer_bytes + #value
          call('HSET', record, 'a:' .. id, value, format('n:%d', newest), id)
          while newest - oldest >= 1000 or (answer_bytes > 4194304 and newest - oldest > 0) do
            local number = format('n:%d', oldest)
            local field = 'a:' .. (call('HGET', record, number) or '')
            answer_bytes = answer_bytes - #(call('HGET', record, field) or '')
            oldest, dropped[number], dropped[field] = oldest + 1, true, true
          end
          if from then
            open = string.sub(open, 1, from) .. string.sub(open, to + 1)
            if open_count then
              open_count, open_bytes = open_count - 1, open_bytes - #(call('HGET', record, 'i:' .. id) or '')
            end
          else
            from, to = string.find(void, spaced, 1, true)
            if from then void = string.sub(void, 1, from) .. string.sub(void, to + 1) end
          end
          dropped['i:' .. id] = true
          if open == ' ' and new_state == 'waiting_input' then new_state = 'running' end
          call('PUBLISH', KEYS[6] .. suffix, 'answer ' .. id)
        end
      end
    end
    seq = seq + 1
    last = format('%s-%d', ms_text, seq)
    bytes = bytes + #json
    if bytes >= next_part then -- a part begins: it and the 15 before it stay
      local part = math.floor(bytes / part_bytes)
      for number = math.max(next_part / part_bytes, part - 15), part do
        call('HSET', record, format('b:%d', number % 16), last)
      end
      local cut = call('HGET', record, format('b:%d', (part + 1) % 16)) or '0-1'
      next_part = (part + 1) * part_bytes
      call('XADD', log, 'MINID', cut, last, type, json)
    elseif seq > trim and trim > 0 then
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
  if mark ~= 'd' then taken = taken + 1 end
  if terminal and mark ~= 'd' then
    for next_mark = at + 5, #ARGV, 3 do
      if ARGV[next_mark] ~= '-' then verdict, detail = 'ended', new_state end
    end
    if verdict == 'ok' then taken = count - skip end
    break
  end
  at = at + 3
end

local reached = ARGV[2] ~= '' and format('%d', first + skip + taken - 1)
if reached and not known[4] and not is_first and taken > 0 then
  -- A new producer. If it is one too many, the first in the line that has written nothing since is forgotten.
  local place, gone = tonumber(call('HGET', record, 'producers') or 0) + 1, {}
  while place > 4000 do
    local head = format('q:%d', place - 4000)
    local name, number = string.match(call('HGET', record, head) or '', '^(.+) (%d+)$')
    local current = name and call('HGET', record, 'p:' .. name)
    gone[#gone + 1] = head
    if not current or current == number or #gone > 16 then
      gone[#gone + 1] = 'p:' .. (name or '')
      gone[#gone + 1] = 'u:' .. (name or '')
      break
    end
    call('HSET', record, format('q:%d', place), name .. ' ' .. current)
    place = place + 1
  end
  call('HSET', record, format('q:%d', place), ARGV[2] .. ' ' .. reached, 'producers', format('%d', place))
  if #gone > 0 then redis.pcall('HDEL', record, unpack(gone)) end
end
if appended == 0 then
  if taken > 0 and reached and state then call('HSET', record, producer, reached) end
  return {verdict, last, 0, detail}
end

local changes = {'ms', ms_text, 'seq', format('%d', seq)}
if reached then
  changes[5], changes[6] = producer, reached
end
if bytes >= 0 then
  changes[#changes + 1] = 'bytes'
  changes[#changes + 1] = format('%d', bytes)
end
for i = 16, base - 1 do changes[#changes + 1] = ARGV[i] end
if known[9] and base > 16 then -- they stay as the execution began
  changes[#changes + 1] = 'hooks'
  changes[#changes + 1] = known[9]
end
if new_state ~= state then
  changes[#changes + 1] = 'state'
  changes[#changes + 1] = new_state
  if not state then
    changes[#changes + 1] = 'format'
    changes[#changes + 1] = format('%d', record_format)
  end
end
if terminal then -- nobody waits any more, and credentials were for the agent only
  dropped = dropped or {}
  dropped['given'] = true
  if not open then open, void = lists[1], lists[2] end
  for place = 1, number or 0 do dropped['g:' .. (call('HGET', record, format('o:%d', place)) or '')] = true end
  if open then
    for id in string.gmatch(open .. (void or ''), '%S+') do dropped['i:' .. id] = true end
    open, void = ' ', ' '
  end
end
if open then
  for _, text in ipairs({'open', open, 'void', void}) do changes[#changes + 1] = text end
end
if oldest then
  changes[#changes + 1] = 'answers'
  changes[#changes + 1] = format('%d %d %d', oldest, newest, answer_bytes)
end
if number then
  local counted = format('%d %d %d', number, size, inbox_of)
  for _, text in ipairs({'inbox', inbox, 'messages', counted}) do changes[#changes + 1] = text end
end
if take then
  changes[#changes + 1] = 'take'
  changes[#changes + 1] = take
end
if takes_over then
  local attempt = math.max(math.min(tonumber(takes_over), 2147483647), tonumber(known[6] or 0))
  for _, text in ipairs({'attempt', format('%d', attempt), 'owner', '', 'lease', '0'}) do changes[#changes + 1] = text end
end
if terminal then
  for _, text in ipairs({'end', terminal, 'owner', ''}) do changes[#changes + 1] = text end
end
if owner ~= '' and (terminal or takes_over) then -- an attempt ends
  local run = call('HMGET', record, 'claimedAt', 'lease', 'spentMs')
  local ends = mode == 'lapsed' and math.min(now, tonumber(run[2] or now)) or now
  changes[#changes + 1] = 'spentMs'
  changes[#changes + 1] = format('%.0f', (run[3] or 0) + math.max(0, ends - tonumber(run[1] or ends)))
end
if counted then
  local total = 'u:' .. (ARGV[2] == '' and is_exact and ARGV[1] .. '.' or ARGV[2]) -- each attempt begins at 0
  local had = call('HMGET', record, 'spentTokens', 'spentNanos', 'spentCalls', total)
  local more_tokens, more_nanos = 0, 0
  if total_tokens >= 0 then
    local tokens, nanos = string.match(had[4] or '0 0', '^(%d+) (%d+)$')
    more_tokens, more_nanos = math.max(0, total_tokens - tokens), math.max(0, total_nanos - nanos)
    call('HSET', record, total, format('%.0f %.0f', tokens + more_tokens, nanos + more_nanos))
  end
  local tokens, nanos = format('%.0f', (had[1] or 0) + more_tokens), format('%.0f', (had[2] or 0) + more_nanos)
  local calls = format('%.0f', (had[3] or 0) + tool_calls)
  for _, text in ipairs({'spentTokens', tokens, 'spentNanos', nanos, 'spentCalls', calls}) do changes[#changes + 1] = text end
  if verdict == 'ok' then detail = tokens .. ' ' .. nanos .. ' ' .. calls .. ' ' .. counted end
  if root ~= '' and root ~= ARGV[12] then -- of the same owner, and so in the same slot
    local of_root = string.sub(record, 1, -1 - #ARGV[12]) .. root
    local root_had = call('HMGET', of_root, 'state', 'spentTokens', 'spentNanos', 'spentCalls')
    if root_had[1] then
      call('HSET', of_root, 'spentTokens', format('%.0f', (root_had[2] or 0) + more_tokens),
        'spentNanos', format('%.0f', (root_had[3] or 0) + more_nanos),
        'spentCalls', format('%.0f', (root_had[4] or 0) + tool_calls))
    end
  end
end
-- Expiries are renewed now and then, not at every append: four calls saved for most batches.
local ttl = tonumber(ARGV[7])
local stale = terminal or not known[5] or (ttl > 0 and now - known[5] > ttl / 64)
if stale then
  changes[#changes + 1] = 'fresh'
  changes[#changes + 1] = now_text
end
call('HSET', record, unpack(changes))
if dropped then
  local fields = {}
  for field in pairs(dropped) do fields[#fields + 1] = field end
  -- A user of Redis who may not delete fields (an older ACL) keeps them: nothing here relies on their absence.
  for at = 1, #fields, 1000 do -- Lua cannot unpack any number
    redis.pcall('HDEL', record, unpack(fields, at, math.min(at + 999, #fields)))
  end
end

if not state then
  call('ZADD', KEYS[5], ms_text, ARGV[12])
  call('ZREMRANGEBYRANK', KEYS[5], 0, -10001)
  if KEYS[7] then
    call('ZADD', KEYS[7], ms_text, ARGV[12])
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

call(ARGV[10], log .. suffix, appended == 1 and lines[1] or table.concat(lines))
if feed_lines then call(ARGV[10], feed .. suffix, #to_feed == 1 and feed_lines[1] or table.concat(feed_lines)) end

local hooks = known[9]
if not state then -- the log begins, and may have said so just now
  for i = 16, base - 2, 2 do
    if ARGV[i] == 'hooks' then hooks = ARGV[i + 1] end
  end
end
if hooks and to_feed then -- the edges wake; whoever hears nothing finds it at the next check
  for _, at in ipairs(to_feed) do
    if string.find(hooks, ' ' .. ARGV[at] .. ' ', 1, true) then
      local channel, names = string.match(hooks, '^(%S+) (%S+ %S+) ')
      -- An older ACL does not allow the channel.
      if channel then redis.pcall('PUBLISH', channel .. suffix, names) end
      break
    end
  end
end
return {verdict, last, appended - own, detail}
