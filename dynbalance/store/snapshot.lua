-- Answers all of one upstream at one moment; writes nothing.
local u = upstream(1)
return {
  redis.call('GET', u.revision) or '0',
  ms(time()),
  redis.call('HGETALL', u.meta),
  redis.call('HGETALL', u.heartbeat),
  redis.call('ZRANGE', u.zset, 0, -1, 'WITHSCORES'),
  redis.call('HGETALL', u.unhealthy),
  redis.call('HGET', u.sync, 'era') or '',
}
