-- Reads the messages that an attempt has not taken, in their order; or again those of its last take, if it had this name.
-- From then on the execution accepts messages.
--
-- KEYS  1 record (hash)
-- ARGV  1 attempt (0: the newest)  2 name of a take (empty: none)  3 messages at most
--       4 i: only those that interrupt, q: only the others
-- Reply { state (empty: no such execution), the record's attempt, the attempt that was meant, 1 if the take was done
--         already, then per message: its id, `<event id> <q|i> <data>`, the data before redaction (empty: the same) }

local record = KEYS[1]
local known = redis.call('HMGET', record, 'state', 'attempt', 'messages', 'inbox', 'take', 'accepts')
local number, inbox_of = string.match(known[3] or '0 0 0', '^(%d+) %d+ (%d+)')
local current, attempt = tonumber(known[2] or 0), tonumber(ARGV[1])
number, inbox_of = tonumber(number), tonumber(inbox_of)
if attempt == 0 then attempt = math.max(current, inbox_of, 1) end
local reply = {known[1] or '', current, attempt, 0}
local most = tonumber(ARGV[3])
local wanted = ARGV[4] ~= '' and '^%S+ ' .. ARGV[4] .. ' '
if known[1] and known[6] ~= '1' then redis.call('HSET', record, 'accepts', '1') end

local function add(id, is_taken)
  local found = redis.call('HMGET', record, 'm:' .. id, 'g:' .. id)
  if found[1] and (is_taken or not wanted or string.find(found[1], wanted)) then
    reply[#reply + 1] = id
    reply[#reply + 1] = found[1]
    reply[#reply + 1] = found[2] or ''
    most = most - 1
  end
end

local by, name, taken = string.match(known[5] or '', '^(%d+) (%S+) (.*)$')
if name and name == ARGV[2] and tonumber(by) == attempt then
  reply[4] = 1
  for id in string.gmatch(taken, '%S+') do add(id, true) end -- of whatever kind
elseif attempt > inbox_of then -- a later attempt takes all of them again
  for place = 1, number do
    if most <= 0 then break end
    local id = redis.call('HGET', record, string.format('o:%d', place))
    if id and redis.call('HEXISTS', record, 'x:' .. id) == 0 then add(id) end
  end
elseif attempt == inbox_of then
  for id in string.gmatch(known[4] or '', '%S+') do
    if most <= 0 then break end
    add(id)
  end
end
return reply
