-- ARGV: address, 1 if a heartbeat ends an expiry, the revision wanted.  Answers nil
-- if it is no server.
local u, address, at = upstream(1), ARGV[1], time()
local stale = expect(u, ARGV[3])
if stale then return stale end
thaw(u, at)
local before = redis.call('HGET', u.meta, address)
local meta = before and parse(before)
if not meta then return false end

local intent, expired = state_of(meta)
local back = expired and ARGV[2] == '1'
put(meta, 'last_heartbeat', ms(at))
if back then
  put_state(meta, intent, false)
  if intent == 'enable' then put_reason(meta) end
end
local text = text_of(meta)
redis.call('HSET', u.heartbeat, address, ms(at))
redis.call('HSET', u.meta, address, text)
if back then record(u, at, 'heartbeat', 'return', address, before, text) end
return server(u, address, text)
