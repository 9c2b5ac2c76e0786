-- Asks the worker that owns an execution to cancel it. The first request's words are kept.
-- KEYS  1 record  2 control (channel)   ARGV  1 cancel (JSON)  2 PUBLISH or SPUBLISH
-- Reply: the execution's state, or nil if there is none.
local state = redis.call('HGET', KEYS[1], 'state')
if state and state ~= 'completed' and state ~= 'failed' and state ~= 'cancelled' then
  redis.call('HSETNX', KEYS[1], 'cancel', ARGV[1])
  redis.call(ARGV[2], KEYS[2], 'cancel')
end
return state
