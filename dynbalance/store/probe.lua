-- Who checks which server, so that of all nodes one does.
-- ARGV: node, seconds for which its claims hold (0: it gives them up), then
-- addresses.  Answers those that are the node's now.
local u, node, lease, at = upstream(1), ARGV[1], tonumber(ARGV[2]), time()
local FORGOTTEN = 3600
thaw(u, at)

local mine = {}
for i = 3, #ARGV do
  local address = ARGV[i]
  local till, who = claim_of(u, address)
  if lease > 0 and (who == node or till < at) then
    redis.call('HSET', u.probers, address, ms(at + lease) .. ' ' .. node)
    mine[#mine + 1] = address
  elseif lease == 0 and who == node then
    redis.call('HDEL', u.probers, address)
  end
end

-- The servers of a configuration file are gone without a word.
if redis.call('HLEN', u.probers) > #ARGV - 2 then
  for _, address in ipairs(redis.call('HKEYS', u.probers)) do
    if claim_of(u, address) + FORGOTTEN < at then
      redis.call('HDEL', u.probers, address)
      redis.call('HDEL', u.unhealthy, address)
    end
  end
end
return mine
