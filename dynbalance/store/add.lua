-- ARGV: address, the order as a JSON object, who.  Answers nil if it is a server.
local u, address, at = upstream(1), ARGV[1], time()
local before = redis.call('HGET', u.meta, address)
if before and parse(before) then return false end

local meta = parse(ARGV[2])
put_state(meta, 'enable', false)
put(meta, 'created_at', ms(at))
put(meta, 'last_heartbeat', ms(at))
local text = text_of(meta)
redis.call('HSET', u.meta, address, text)
redis.call('HSET', u.heartbeat, address, ms(at))
-- The nodes may still hold connections from when it was a server before; and a
-- member that is there already is a ghost.
redis.call('ZADD', u.zset, sum_of(u, address), address)
redis.call('ZREM', u.file, address)
mark(u, address)
record(u, at, ARGV[3], 'add', address, before or '', text)
return server(u, address, text)
