-- Answers the number of servers.
local u = upstream(1)
reap(u, time())
return recount(u)
