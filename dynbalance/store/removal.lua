-- A server is no server any more.
local function take_away(u, at, by, action, address, before)
  redis.call('HDEL', u.meta, address)
  redis.call('HDEL', u.heartbeat, address)
  redis.call('HDEL', u.unhealthy, address)
  redis.call('HDEL', u.probers, address)
  redis.call('ZREM', u.zset, address)
  -- What still runs to it is counted on, beside the servers.
  local sum = sum_of(u, address)
  if sum > 0 then redis.call('ZADD', u.file, sum, address) end
  mark(u, address)
  record(u, at, by, action, address, before, '')
end
