-- ARGV: address, enable, disable or drain, who; of a drain how many seconds it
-- lasts at most and what comes then.  Answers nil if it is no server.
local u, address, intent, at = upstream(1), ARGV[1], ARGV[2], time()
local before = redis.call('HGET', u.meta, address)
local meta = before and parse(before)
if not meta then return false end

local _, expired = state_of(meta)
put(meta, 'updated_at', ms(at))
put_drain(meta)
if intent == 'enable' then
  put_state(meta, intent, false)
  put_reason(meta)
  -- A full time to live for the next heartbeat to come.
  redis.call('HSET', u.heartbeat, address, ms(at))
else
  put_state(meta, intent, expired)
  put_reason(meta, intent == 'drain' and 'draining' or 'manual', at)
end
if intent == 'drain' then
  local seconds, what = tonumber(ARGV[4]), ARGV[5]
  put_drain(meta, seconds > 0 and at + seconds, what ~= '' and what)
end
local text = text_of(meta)
redis.call('HSET', u.meta, address, text)
record(u, at, ARGV[3], intent, address, before, text)
return server(u, address, text)
