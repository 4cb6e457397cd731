-- ARGV: address, the order as a JSON object, who, the revision wanted.  Answers nil
-- if it is a server.
local u, address, at = upstream(1), ARGV[1], time()
local stale = expect(u, ARGV[4])
if stale then return stale end
thaw(u, at)
local before = redis.call('HGET', u.meta, address)
if before and parse(before) then return false end

local meta = parse(ARGV[2])
put_state(meta, 'enable', false)
return server(u, address, admit(u, at, ARGV[3], 'add', address, before, meta))
