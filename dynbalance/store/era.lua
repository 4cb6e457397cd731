-- An era begins with the first exchange after the store was empty, and with each
-- restoration.  By it a node sees that the store is not the one that it knew.
local function begin_era(u, at, node)
  local era = string.format('%.6f %s', at, node)
  redis.call('HSET', u.sync, 'era', era)
  return era
end

local function began(era)
  return tonumber(string.match(era, '^%S+')) or 0
end
