-- ARGV: address, who.  Answers nil if it is no server.
local u, address, at = upstream(1), ARGV[1], time()
local before = redis.call('HGET', u.meta, address)
if not before then return false end

redis.call('HDEL', u.meta, address)
redis.call('HDEL', u.heartbeat, address)
redis.call('HDEL', u.unhealthy, address)
redis.call('HDEL', u.probers, address)
redis.call('ZREM', u.zset, address)
-- What still runs to it is counted on, beside the servers.
local sum = sum_of(u, address)
if sum > 0 then redis.call('ZADD', u.file, sum, address) end
mark(u, address)
record(u, at, ARGV[2], 'remove', address, before, '')
return 1
