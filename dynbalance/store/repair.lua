-- What somebody changed by hand: seen by three lengths, without a scan while they
-- are as they should be.

local HAND = 'by hand'

-- The meta says who is a server; what does not fit it is made to.
local function mend(u, at)
  local found, is = {}, {}
  local function tell(address, what)
    found[#found + 1] = address
    found[#found + 1] = what
  end
  local servers = redis.call('HKEYS', u.meta)
  for _, address in ipairs(servers) do is[address] = true end
  for _, others in ipairs({redis.call('ZRANGE', u.zset, 0, -1), redis.call('HKEYS', u.heartbeat)}) do
    for _, address in ipairs(others) do
      if is[address] == nil then
        is[address] = false
        take_away(u, at, HAND, 'remove', address, '')
        tell(address, 'removed')
      end
    end
  end
  for _, address in ipairs(servers) do
    local lost = not redis.call('ZSCORE', u.zset, address)
    if lost then
      redis.call('ZADD', u.zset, sum_of(u, address), address)
      redis.call('ZREM', u.file, address)
      mark(u, address)
    end
    if redis.call('HSETNX', u.heartbeat, address, ms(at)) == 1 or lost then
      local text = redis.call('HGET', u.meta, address)
      record(u, at, HAND, 'repair', address, text, text)
      tell(address, 'completed')
    end
  end
  return found
end

-- Answers the era, and addresses and what became of them in turn.
local function look(u, at, node)
  local known = redis.call('HMGET', u.sync, 'era', 'looked')
  local era = known[1] or begin_era(u, at, node)
  local size = redis.call('HLEN', u.meta)
  local revision = redis.call('GET', u.revision) or '0'
  local fits = size == redis.call('ZCARD', u.zset) and size == redis.call('HLEN', u.heartbeat)
  if fits and known[2] == revision .. ' ' .. size then return era, {} end

  local found, by_hand = {}, known[2] and string.match(known[2], '^%S+') == revision
  if by_hand or not fits then found = mend(u, at) end
  if by_hand and #found == 0 then
    -- Whole servers came or went, and no script did it.
    record(u, at, HAND, 'repair', '', '', '')
    found = {'', 'changed'}
  end
  revision = redis.call('GET', u.revision) or '0'
  redis.call('HSET', u.sync, 'looked', revision .. ' ' .. redis.call('HLEN', u.meta))
  return era, found
end
