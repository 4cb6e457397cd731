-- One node's exchange, for all its upstreams at once.
-- KEYS: for each upstream its keys, then the node's hash.
-- ARGV: node, lease, then for each upstream 1 if the report is full, the last
-- sequence number that the node heard, n, and n times address and count.
-- Answers for each upstream: revision, sequence number, 1 if the totals are all
-- there are, 1 if the node must report in full, and address and total in turn.

local REMEMBERED = 1000

-- Addresses come and go; what was said of the departed must not pile up.
local function forget(u)
  local excess = redis.call('ZCARD', u.changed) - redis.call('ZCARD', u.zset)
    - redis.call('ZCARD', u.file) - REMEMBERED
  if excess <= 0 then return end
  local last = redis.call('ZRANGE', u.changed, excess - 1, excess - 1, 'WITHSCORES')
  redis.call('HSET', u.sync, 'floor', last[2])
  redis.call('ZREMRANGEBYRANK', u.changed, 0, excess - 1)
end

local function all_totals(u)
  local totals = {}
  -- Later ones stand for earlier ones, so the zeros come first.
  for _, address in ipairs(redis.call('ZRANGE', u.changed, 0, -1)) do
    totals[#totals + 1] = address
    totals[#totals + 1] = '0'
  end
  for _, key in ipairs({u.zset, u.file}) do
    for _, part in ipairs(redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')) do
      totals[#totals + 1] = part
    end
  end
  return totals
end

local function changed_totals(u, seen)
  local totals = {}
  for _, address in ipairs(redis.call('ZRANGEBYSCORE', u.changed, '(' .. seen, '+inf')) do
    totals[#totals + 1] = address
    totals[#totals + 1] = redis.call('ZSCORE', u.zset, address)
      or redis.call('ZSCORE', u.file, address) or '0'
  end
  return totals
end

local node, lease, at, next_arg = ARGV[1], ARGV[2], time(), 3
local answers = {}
for first = 1, #KEYS, FIXED + 1 do
  local u, conns = upstream(first), KEYS[first + FIXED]
  local full, seen = ARGV[next_arg] == '1', ARGV[next_arg + 1]
  local from = next_arg + 3
  next_arg = from + 2 * tonumber(ARGV[next_arg + 2])

  heard(u, at, tonumber(lease))
  reap(u, at)
  local live = redis.call('ZSCORE', u.nodes, node)
  local lapsed = not live and not full
  if not lapsed then
    local alone = not live and redis.call('ZCARD', u.nodes) == 0
    redis.call('ZADD', u.nodes, ms(at + tonumber(lease)), node)
    local said = {}
    for i = from, next_arg - 1, 2 do
      said[ARGV[i]] = true
      hold(u, conns, ARGV[i], tonumber(ARGV[i + 1]))
    end
    if full then
      for _, address in ipairs(redis.call('HKEYS', conns)) do
        if not said[address] then hold(u, conns, address, 0) end
      end
    end
    -- Nobody kept the published numbers: whatever they are, they are not ours.
    if alone then recount(u) end
  end

  forget(u)
  local known = redis.call('HMGET', u.sync, 'seq', 'floor')
  local seq, floor = tonumber(known[1]) or 0, tonumber(known[2]) or 0
  local complete = tonumber(seen) == 0 or tonumber(seen) < floor or tonumber(seen) > seq
  answers[#answers + 1] = {
    redis.call('GET', u.revision) or '0',
    seq,
    complete and 1 or 0,
    lapsed and 1 or 0,
    complete and all_totals(u) or changed_totals(u, seen),
  }
end
return answers
