-- ARGV: address, who, the revision wanted.  Answers nil if it is no server.
local u, address, at = upstream(1), ARGV[1], time()
local stale = expect(u, ARGV[3])
if stale then return stale end
local before = redis.call('HGET', u.meta, address)
if not before then return false end

take_away(u, at, ARGV[2], 'remove', address, before)
return 1
