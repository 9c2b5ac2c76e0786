-- Says that the process which runs executions is alive: renews the leases of those that no worker holds.
--
-- KEYS  1 record (hash)  then those of other executions
-- ARGV  1 field: lease (of an emitter, which hears of cancels by this call) or seen (of a client over HTTP)
-- Reply per record: 0: none (it has not begun yet, has no lease of this kind, or a worker holds it); -1: ended (the log is
--       closed); else when the lease ends (ms), or { that, cancel (JSON) }

local replies, now = {}, nil
for number = 1, #KEYS do
  local record = KEYS[number]
  local known = redis.call('HMGET', record, 'state', 'owner', 'hold', 'cancel')
  local state, reply = known[1], 0
  if state == 'completed' or state == 'failed' or state == 'cancelled' then
    reply = -1
  elseif state and known[3] and (known[2] or '') == '' then
    if not now then
      local time = redis.call('TIME')
      now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
    end
    reply = now + tonumber(known[3])
    redis.call('HSET', record, ARGV[1], string.format('%d', reply))
    if known[4] then reply = { reply, known[4] } end
  end
  replies[number] = reply
end
return replies
