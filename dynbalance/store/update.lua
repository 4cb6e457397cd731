-- ARGV: address, what changes as a JSON object, who, the revision wanted.  Answers
-- nil if it is no server.
local u, address, at = upstream(1), ARGV[1], time()
local stale = expect(u, ARGV[4])
if stale then return stale end
thaw(u, at)
local before = redis.call('HGET', u.meta, address)
local meta = before and parse(before)
if not meta then return false end

if not reorder(u, address, meta, parse(ARGV[2]), at) then return server(u, address, before) end
put(meta, 'updated_at', ms(at))
local text = text_of(meta)
redis.call('HSET', u.meta, address, text)
record(u, at, ARGV[3], 'update', address, before, text)
return server(u, address, text)
