-- One node's exchange, for all its upstreams at once.
-- KEYS: for each upstream its keys, then the node's two hashes.
-- ARGV: node, lease, then for each upstream 1 if the report is full, the last
-- sequence number that the node heard, the number of this call, that up to which
-- grants are settled, 1 if the node goes short, n, and n times address and count.
-- Answers for each upstream: revision, sequence number, 1 if the totals are all
-- there are, 1 if the node must report in full, 1 if the call came late, the
-- number of the last call, address and total in turn, the era, what was changed
-- by hand, how often nodes went short, and how many nodes there are.

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

-- What the node was granted and has not settled stays counted: its numbers do
-- not have it yet.  Answers address -> how many.
local function unsettled(grants, kept, settled)
  local open = {}
  for i = 1, #kept, 2 do
    local number, address = string.match(kept[i], '^(%d+) (.*)$')
    if number and tonumber(number) <= settled then
      redis.call('HDEL', grants, kept[i])
    elseif number then
      open[address] = (open[address] or 0) + tonumber(kept[i + 1])
    end
  end
  return open
end

local function last_of(kept)
  for i = 1, #kept, 2 do
    if kept[i] == 'last' then return tonumber(kept[i + 1]) end
  end
  return 0
end

local node, lease, at, next_arg = ARGV[1], ARGV[2], time(), 3
local answers = {}
for first = 1, #KEYS, FIXED + 2 do
  local u, conns, grants = upstream(first), KEYS[first + FIXED], KEYS[first + FIXED + 1]
  local full, seen = ARGV[next_arg] == '1', ARGV[next_arg + 1]
  local number, settled = tonumber(ARGV[next_arg + 2]), tonumber(ARGV[next_arg + 3])
  local hungry, from = ARGV[next_arg + 4] == '1', next_arg + 6
  next_arg = from + 2 * tonumber(ARGV[next_arg + 5])

  -- What waited in a connection that the node has given up is no news.
  local kept = redis.call('HGETALL', grants)
  local last = last_of(kept)
  local late = number > 0 and number <= last
  if not late then heard(u, at, tonumber(lease), full) end
  reap(u, at)
  local era, found = look(u, at, node)
  local live = redis.call('ZSCORE', u.nodes, node)
  local lapsed = not live and not full
  if not live then kept = {} end
  if not (lapsed or late) then
    local alone = not live and redis.call('ZCARD', u.nodes) == 0
    redis.call('ZADD', u.nodes, ms(at + tonumber(lease)), node)
    local open, said = unsettled(grants, kept, settled), {}
    if hungry then redis.call('HINCRBY', u.sync, 'hungry', 1) end
    if number > 0 then
      redis.call('HSET', grants, 'last', number)
      last = number
    end
    for i = from, next_arg - 1, 2 do
      said[ARGV[i]] = true
      hold(u, conns, ARGV[i], tonumber(ARGV[i + 1]) + (open[ARGV[i]] or 0))
    end
    if full then
      for _, address in ipairs(redis.call('HKEYS', conns)) do
        if not said[address] then hold(u, conns, address, open[address] or 0) end
      end
    end
    -- Nobody kept the published numbers: whatever they are, they are not ours.
    if alone then recount(u) end
  end

  forget(u)
  local seq, complete, totals = news(u, seen)
  answers[#answers + 1] = {
    redis.call('GET', u.revision) or '0',
    seq,
    complete and 1 or 0,
    lapsed and 1 or 0,
    late and 1 or 0,
    last,
    totals,
    era,
    found,
    tonumber(redis.call('HGET', u.sync, 'hungry')) or 0,
    redis.call('ZCARD', u.nodes),
  }
end
return answers
