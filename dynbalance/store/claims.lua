-- A claim on the checks of a server is a text: when it ends, and whose it is.
local function claim_of(u, address)
  local claim = redis.call('HGET', u.probers, address)
  local till, who = string.match(claim or '', '^(%S+) (.*)$')
  return tonumber(till) or 0, who
end
