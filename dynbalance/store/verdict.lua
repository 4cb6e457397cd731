-- ARGV: node, address, what the check found as a JSON object; empty when the
-- server is well.  Answers 1 unless the node has lost its claim to another.
local u, node, address, at = upstream(1), ARGV[1], ARGV[2], time()
local _, who = claim_of(u, address)
if who ~= node then return 0 end

local before = redis.call('HGET', u.unhealthy, address)
if ARGV[3] == '' then
  if before then
    redis.call('HDEL', u.unhealthy, address)
    record(u, at, 'health_check', 'healthy', address, before, '')
  end
elseif not before then
  local found = parse(ARGV[3])
  put(found, 'at', ms(at))
  local text = text_of(found)
  redis.call('HSET', u.unhealthy, address, text)
  record(u, at, 'health_check', 'unhealthy', address, '', text)
end
return 1
