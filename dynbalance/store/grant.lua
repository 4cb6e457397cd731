-- Choosing and counting in one step.
-- KEYS: those of the upstream, then the node's two hashes.
-- ARGV: node, the number of this call, the last sequence number that the node
-- heard, then for each wish address, count, the limit or nothing for what stands
-- here, and 1 if the server's state does not matter.
-- Answers the number of the node's last call, 1 if the node must report in full,
-- 1 if the call came late, what is granted of each wish, the sequence number or 0,
-- 1 if the totals are all there are, and address and total in turn.

local function total_of(u, address)
  return tonumber(redis.call('ZSCORE', u.zset, address)
    or redis.call('ZSCORE', u.file, address)) or 0
end

-- What may be added to an address.
local function room(u, address, limit, anyhow)
  limit = tonumber(limit)
  if not limit then
    local text = redis.call('HGET', u.meta, address)
    local ok, fields = pcall(cjson.decode, text or '')
    if not ok or type(fields) ~= 'table' then return 0 end
    if not anyhow and fields.enabled == false then return 0 end
    -- As codec.py has it where nothing is said.
    limit = tonumber(fields.max_conns) or 1000
  end
  if limit == 0 then return math.huge end
  return math.max(0, limit - total_of(u, address))
end

local u, conns, grants = upstream(1), KEYS[1 + FIXED], KEYS[2 + FIXED]
local node, number, seen, at = ARGV[1], ARGV[2], ARGV[3], time()
local last = tonumber(redis.call('HGET', grants, 'last')) or 0
local till = tonumber(redis.call('ZSCORE', u.nodes, node))
if till and till < at then
  -- Perhaps it is the clock that went on.
  thaw(u, at)
  till = tonumber(redis.call('ZSCORE', u.nodes, node))
end
local late, lapsed = tonumber(number) <= last, not till or till < at
if late or lapsed then
  return {last, lapsed and 1 or 0, late and 1 or 0, {}, 0, 0, {}}
end

redis.call('HSET', grants, 'last', number)
local counts, refused = {}, false
for i = 4, #ARGV, 4 do
  local address, wanted = ARGV[i], tonumber(ARGV[i + 1])
  local count = math.min(wanted, room(u, address, ARGV[i + 2], ARGV[i + 3] == '1'))
  if count > 0 then
    redis.call('HINCRBY', conns, address, count)
    redis.call('HINCRBY', grants, number .. ' ' .. address, count)
    change(u, address, count)
  end
  refused = refused or count < wanted
  counts[#counts + 1] = count
end
if refused then
  local seq, complete, totals = news(u, seen)
  return {number, 0, 0, counts, seq, complete and 1 or 0, totals}
end
local totals = {}
for i = 4, #ARGV, 4 do
  totals[#totals + 1] = ARGV[i]
  totals[#totals + 1] = tostring(total_of(u, ARGV[i]))
end
return {number, 0, 0, counts, 0, 0, totals}
