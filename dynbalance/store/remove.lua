-- ARGV: address, who.  Answers nil if it is no server.
local u, address, at = upstream(1), ARGV[1], time()
local before = redis.call('HGET', u.meta, address)
if not before then return false end

take_away(u, at, ARGV[2], address, before)
return 1
