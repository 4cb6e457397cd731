-- An era begins with the first exchange after the store was empty, and with each
-- restoration.  By it a node sees that the store is not the one that it knew.
-- Its text says when it began, by which node, and with which era its line began.
-- Where one follows another it is the later one, whatever the clock says.
local function begin_era(u, at, node, root)
  local began = string.format('%.6f', at)
  local era = began .. ' ' .. node .. ' ' .. (root or began .. '/' .. node)
  redis.call('HSET', u.sync, 'era', era)
  return era
end

local function began(era)
  return tonumber(string.match(era, '^%S+')) or 0
end

local function root_of(era)
  return string.match(era, '%S+$')
end
