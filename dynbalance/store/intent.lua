-- ARGV: address, enable, disable or drain, who; of a drain how many seconds it
-- lasts at most and what comes then; the revision wanted; 1 if the server itself
-- asked for the drain.  Answers nil if it is no server.
local u, address, intent, at = upstream(1), ARGV[1], ARGV[2], time()
local stale = expect(u, ARGV[6])
if stale then return stale end
thaw(u, at)
local before = redis.call('HGET', u.meta, address)
local meta = before and parse(before)
if not meta then return false end

local _, expired = state_of(meta)
put(meta, 'updated_at', ms(at))
if intent == 'enable' then
  expired = false
  -- A full time to live for the next heartbeat to come.
  redis.call('HSET', u.heartbeat, address, ms(at))
end
put_intent(meta, intent, expired, at, ARGV[4], ARGV[5], ARGV[7] == '1')
local text = text_of(meta)
redis.call('HSET', u.meta, address, text)
record(u, at, ARGV[3], intent, address, before, text)
return server(u, address, text)
