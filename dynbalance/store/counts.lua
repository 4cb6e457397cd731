-- The connection counts.  The one invariant: what is published of an address is
-- the sum of what the nodes in `nodes` hold of it, in the ZSET of the servers or,
-- for an address that is no server here, in the other one, where it is a member
-- only while it is not 0.  No number is ever clamped.

-- Dead nodes' hashes cannot be named by the caller; they have the same hash tag.
local function conns_of(u, node)
  return string.sub(u.nodes, 1, -2) .. ':' .. node .. ':conns'
end

local function grants_of(u, node)
  return string.sub(u.nodes, 1, -2) .. ':' .. node .. ':grants'
end

local function sum_of(u, address)
  local sum = 0
  for _, node in ipairs(redis.call('ZRANGE', u.nodes, 0, -1)) do
    sum = sum + (tonumber(redis.call('HGET', conns_of(u, node), address)) or 0)
  end
  return sum
end

-- All that one script changes in an upstream has one sequence number.
local function mark(u, address)
  if not u.seq then u.seq = redis.call('HINCRBY', u.sync, 'seq', 1) end
  redis.call('ZADD', u.changed, u.seq, address)
end

-- To be called after the node's hash was changed.
local function change(u, address, by)
  local known = redis.call('HEXISTS', u.meta, address) == 1
  local key = known and u.zset or u.file
  local total = redis.call('ZADD', key, 'XX', 'INCR', by, address)
  if not total then
    -- A difference alone makes no member: that is how ghosts are born.  A server
    -- whose member somebody deleted gets its sum.
    total = (known or by < 0) and sum_of(u, address) or by
    if known or total > 0 then redis.call('ZADD', key, total, address) end
  elseif not known and tonumber(total) == 0 then
    redis.call('ZREM', key, address)
  end
  mark(u, address)
end

local function hold(u, conns, address, count)
  local before = tonumber(redis.call('HGET', conns, address)) or 0
  if count == before then return end
  if count == 0 then
    redis.call('HDEL', conns, address)
  else
    redis.call('HSET', conns, address, count)
  end
  change(u, address, count - before)
end

local function drop(u, node)
  local conns = conns_of(u, node)
  local held = redis.call('HGETALL', conns)
  redis.call('ZREM', u.nodes, node)
  redis.call('DEL', conns, grants_of(u, node))
  for i = 1, #held, 2 do change(u, held[i], -(tonumber(held[i + 1]) or 0)) end
end

local function reap(u, at)
  for _, node in ipairs(redis.call('ZRANGEBYSCORE', u.nodes, '-inf', '(' .. ms(at))) do
    drop(u, node)
  end
end

-- Everything from the nodes' hashes, whatever was published before.
local function recount(u)
  local sums = {}
  for _, node in ipairs(redis.call('ZRANGE', u.nodes, 0, -1)) do
    local held = redis.call('HGETALL', conns_of(u, node))
    for i = 1, #held, 2 do
      sums[held[i]] = (sums[held[i]] or 0) + (tonumber(held[i + 1]) or 0)
    end
  end
  local servers, known = redis.call('HKEYS', u.meta), {}
  for _, address in ipairs(servers) do
    known[address] = true
    local sum = sums[address] or 0
    if tonumber(redis.call('ZSCORE', u.zset, address)) ~= sum then
      redis.call('ZADD', u.zset, sum, address)
      mark(u, address)
    end
  end
  for _, address in ipairs(redis.call('ZRANGE', u.zset, 0, -1)) do
    if not known[address] then
      redis.call('ZREM', u.zset, address)
      mark(u, address)
    end
  end
  local others = redis.call('ZRANGE', u.file, 0, -1, 'WITHSCORES')
  for i = 1, #others, 2 do
    if known[others[i]] or tonumber(others[i + 1]) ~= sums[others[i]] then
      redis.call('ZREM', u.file, others[i])
      mark(u, others[i])
    end
  end
  for address, sum in pairs(sums) do
    if not known[address] and not redis.call('ZSCORE', u.file, address) then
      redis.call('ZADD', u.file, sum, address)
      mark(u, address)
    end
  end
  return #servers
end
