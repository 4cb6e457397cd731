-- ARGV: address, enable or disable, who.  Answers nil if it is no server.
local u, address, intent, at = upstream(1), ARGV[1], ARGV[2], time()
local before = redis.call('HGET', u.meta, address)
local meta = before and parse(before)
if not meta then return false end

local _, expired = state_of(meta)
put(meta, 'updated_at', ms(at))
if intent == 'enable' then
  put_state(meta, intent, false)
  put_reason(meta)
  -- A full time to live for the next heartbeat to come.
  redis.call('HSET', u.heartbeat, address, ms(at))
else
  put_state(meta, intent, expired)
  put_reason(meta, 'manual', at)
end
local text = text_of(meta)
redis.call('HSET', u.meta, address, text)
record(u, at, ARGV[3], intent, address, before, text)
return server(u, address, text)
