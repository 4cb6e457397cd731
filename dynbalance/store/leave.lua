-- KEYS: for each upstream its keys, then the node's two hashes.  ARGV: node.
local at = time()
for first = 1, #KEYS, FIXED + 2 do
  local u = upstream(first)
  thaw(u, at)
  drop(u, ARGV[1])
  redis.call('HSET', u.sync, 'contact', ms(at))
end
return 1
