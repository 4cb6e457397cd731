-- What every script begins with: names for an upstream's keys, and the time.
-- The order of the keys is that of keys.py.

local FIXED = 11

local function upstream(first)
  return {
    zset = KEYS[first],
    meta = KEYS[first + 1],
    heartbeat = KEYS[first + 2],
    revision = KEYS[first + 3],
    nodes = KEYS[first + 4],
    sync = KEYS[first + 5],
    changed = KEYS[first + 6],
    file = KEYS[first + 7],
    history = KEYS[first + 8],
    unhealthy = KEYS[first + 9],
    probers = KEYS[first + 10],
  }
end

-- The nodes' clocks may differ; only the store's own counts.
local function time()
  local parts = redis.call('TIME')
  return parts[1] + parts[2] / 1000000
end

-- The caller's condition: the revision that the membership must have; nothing or
-- an empty text for any.  Answers an error if it has another.
local function expect(u, revision)
  local now = redis.call('GET', u.revision) or '0'
  if revision and revision ~= '' and revision ~= now then
    return redis.error_reply('STALE ' .. now)
  end
end

-- Lua would write 14 digits; milliseconds need 13 of them until the year 2286.
local function ms(seconds)
  return string.format('%.3f', seconds)
end
