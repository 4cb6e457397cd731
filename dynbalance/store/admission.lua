-- A server that was none, with a first heartbeat.
local function admit(u, at, by, action, address, before, meta)
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
  record(u, at, by, action, address, before or '', text)
  return text
end
