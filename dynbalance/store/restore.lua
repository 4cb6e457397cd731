-- A node gives back what it knows to a store that has lost it.
-- ARGV: node, the era and the revision that it knows, then for each server its
-- address, its JSON text, and what its health check has found; empty for nothing.
-- Answers how many servers it gave back, or nil if the store knows as much.
local u, at = upstream(1), time()
local node, era, revision = ARGV[1], ARGV[2], tonumber(ARGV[3])
local known = redis.call('HMGET', u.sync, 'era', 'from', 'from_revision')
local here = tonumber(redis.call('GET', u.revision)) or 0

-- An earlier state of what the node knows: all of that is newer.
local earlier = known[1] and (known[1] == era and here < revision or began(known[1]) < began(era))
local again = not earlier and known[2]
if known[1] == era and not earlier then return false end
if again and (again ~= era or tonumber(known[3]) >= revision) then return false end

-- Emptied, or given back by a node that knew less: what was changed since holds.
local touched, bounded = {}, not again
if not earlier then
  for _, entry in ipairs(redis.call('XREVRANGE', u.history, '+', '-')) do
    local line = {}
    for i = 1, #entry[2], 2 do line[entry[2][i]] = entry[2][i + 1] end
    if line.action == 'restore' then
      bounded = true
      break
    end
    touched[line.address or ''] = true
  end
end
if not bounded then return false end

-- What is recorded from here on has the next one.
if here < revision then redis.call('SET', u.revision, ARGV[3]) end
local given = {}
for i = 4, #ARGV, 3 do given[ARGV[i]] = true end
if earlier or again then
  for _, address in ipairs(redis.call('HKEYS', u.meta)) do
    if not given[address] and not touched[address] then
      take_away(u, at, node, 'restore', address, redis.call('HGET', u.meta, address))
    end
  end
end
local count = 0
for i = 4, #ARGV, 3 do
  local address = ARGV[i]
  if not touched[address] then
    count = count + 1
    redis.call('HSET', u.meta, address, ARGV[i + 1])
    redis.call('HSET', u.heartbeat, address, ms(at))
    redis.call('ZADD', u.zset, sum_of(u, address), address)
    redis.call('ZREM', u.file, address)
    mark(u, address)
    if ARGV[i + 2] ~= '' then redis.call('HSET', u.unhealthy, address, ARGV[i + 2]) end
  end
end

begin_era(u, at, node)
redis.call('HSET', u.sync, 'from', era, 'from_revision', ARGV[3])
record(u, at, node, 'restore', '', '', '')
return count
