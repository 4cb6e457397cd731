-- A node gives back what it knows to a store that has lost it.
-- ARGV: node, the era and the revision that it knows, then for each server its
-- address, its JSON text, and what its health check has found; empty for nothing.
-- Answers how many servers it gave back, or nil if the store knows as much.
local u, at = upstream(1), time()
local node, era, revision = ARGV[1], ARGV[2], tonumber(ARGV[3])
local known = redis.call('HMGET', u.sync, 'era', 'given', 'replaced', 'since')
local here = tonumber(redis.call('GET', u.revision)) or 0
local REMEMBERED = 20

-- Who knows less: of the same line, an earlier era, or an earlier revision of one.
local function is_less(other_era, other_revision)
  if root_of(other_era) ~= root_of(era) then return false end
  local one, mine = began(other_era), began(era)
  if one ~= mine then return one < mine end
  return other_revision < revision
end

local function views(list)
  local all = {}
  for other, of in string.gmatch(list or '', '(%d+) ([^\n]+)') do
    all[#all + 1] = {revision = tonumber(other), era = of}
  end
  return all
end

local function remember(field, list, of, at_revision)
  list[#list + 1] = {revision = at_revision, era = of}
  local lines = {}
  for i = math.max(1, #list - REMEMBERED + 1), #list do
    lines[#lines + 1] = string.format('%d %s', list[i].revision, list[i].era)
  end
  redis.call('HSET', u.sync, field, table.concat(lines, '\n'))
end

-- An earlier state of what the node knows: all of that is newer.
local earlier = known[1] and is_less(known[1], here)
if known[1] == era and not earlier then return false end
local given, replaced, corrects = views(known[2]), views(known[3]), earlier
if not earlier then
  for _, view in ipairs(replaced) do
    if view.era == era and view.revision >= revision then return false end
  end
  for _, view in ipairs(given) do
    if root_of(view.era) == root_of(era) then
      if not is_less(view.era, view.revision) then
        -- A later era may have begun with less: no revision that a node has seen is
        -- used for anything else.
        if here < revision then redis.call('SET', u.revision, revision + 1) end
        return false
      end
      corrects = true
    end
  end
end

-- Emptied, or given back by a node that knew less: what was changed since holds.
local touched, since = {}, tonumber(known[4]) or 0
if not earlier then
  for _, entry in ipairs(redis.call('XRANGE', u.history, '-', '+')) do
    local line = {}
    for i = 1, #entry[2], 2 do line[entry[2][i]] = entry[2][i + 1] end
    if line.action ~= 'restore' and (tonumber(line.revision) or 0) > since then
      touched[line.address or ''] = true
    end
  end
end

-- What is recorded from here on has the next one.
if here < revision then redis.call('SET', u.revision, ARGV[3]) end
local wanted = {}
for i = 4, #ARGV, 3 do wanted[ARGV[i]] = true end
if corrects then
  for _, address in ipairs(redis.call('HKEYS', u.meta)) do
    if not wanted[address] and not touched[address] then
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

if known[1] then remember('replaced', replaced, known[1], here) end
remember('given', given, era, revision)
-- Whoever is of another line than what was given back before joins that one.
local joins = known[1] and known[2] and not corrects
local latest = math.max(began(era), known[1] and began(known[1]) or 0)
begin_era(u, math.max(at, latest + 0.00001), node, root_of(joins and known[1] or era))
record(u, at, node, 'restore', '', '', '')
if earlier then redis.call('HSET', u.sync, 'since', u.now) end
return count
