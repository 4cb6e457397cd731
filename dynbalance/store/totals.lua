-- What the nodes hear of the counts.

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

-- Arguments of one command; Lua's stack bears some thousands.
local PIECE = 1000

local function changed_totals(u, seen)
  local totals = {}
  local changed = redis.call('ZRANGEBYSCORE', u.changed, '(' .. seen, '+inf')
  for first = 1, #changed, PIECE do
    local last = math.min(first + PIECE - 1, #changed)
    local scores = redis.call('ZMSCORE', u.zset, unpack(changed, first, last))
    for i = first, last do
      totals[#totals + 1] = changed[i]
      totals[#totals + 1] = scores[i - first + 1]
        or redis.call('ZSCORE', u.file, changed[i]) or '0'
    end
  end
  return totals
end

-- Answers the number of the last change, whether the totals are all there are,
-- and address and total in turn.
local function news(u, seen)
  local known = redis.call('HMGET', u.sync, 'seq', 'floor')
  local seq, floor = tonumber(known[1]) or 0, tonumber(known[2]) or 0
  local complete = tonumber(seen) == 0 or tonumber(seen) < floor or tonumber(seen) > seq
  return seq, complete, complete and all_totals(u) or changed_totals(u, seen)
end
