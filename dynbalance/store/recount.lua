-- ARGV: the revision wanted.  Answers the number of servers.
local u = upstream(1)
local stale = expect(u, ARGV[1])
if stale then return stale end
local at = time()
thaw(u, at)
reap(u, at)
return recount(u)
