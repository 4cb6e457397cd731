-- What an operator orders of a server, beside what was observed of it.

-- Takes over the members of an order.  Answers whether one of them is another,
-- and whether the server is expired still.
local function reorder(u, address, meta, order, at)
  local changed, fields = false, meta.fields
  for i, quoted in ipairs(order.names) do
    local name = string.sub(quoted, 2, -2)
    if fields[name] ~= order.fields[name] then
      put(meta, name, order.raw[i])
      changed = true
    end
  end
  local intent, expired = state_of(meta)
  local needs = order.fields.heartbeat
  if needs ~= nil and needs ~= (fields.heartbeat ~= false) then
    if needs then
      -- It has time to send one.
      redis.call('HSET', u.heartbeat, address, ms(at))
    elseif expired then
      expired = false
      put_state(meta, intent, false)
      if intent == 'enable' then put_reason(meta) end
    end
  end
  return changed, expired
end

-- Of a drain: how many seconds it lasts at most, what comes then, and whether the
-- server itself asked for it.
local function put_intent(meta, intent, expired, at, seconds, what, own)
  put_state(meta, intent, expired)
  put_drain(meta)
  if intent == 'enable' then
    put_reason(meta, expired and 'heartbeat_timeout', at)
  else
    local draining = own and 'self_draining' or 'draining'
    put_reason(meta, intent == 'drain' and draining or 'manual', at)
  end
  if intent == 'drain' then
    seconds = tonumber(seconds)
    put_drain(meta, seconds > 0 and at + seconds, what ~= '' and what)
  end
end
