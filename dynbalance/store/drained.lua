-- ARGV: how many seconds a drain lasts at least.  Answers for each drain that is
-- over: address, what was done, and the connections that were left.
local u, settle, at = upstream(1), tonumber(ARGV[1]), time()
thaw(u, at)
local addresses, over = redis.call('HKEYS', u.meta), {}
table.sort(addresses)
for _, address in ipairs(addresses) do
  local before = redis.call('HGET', u.meta, address)
  local meta = parse(before)
  local intent, expired
  if meta then intent, expired = state_of(meta) end
  local what = intent == 'drain' and meta.fields.drain_then
  if what == 'disable' or what == 'remove' then
    local since = tonumber(meta.fields.disabled_at) or 0
    local deadline = tonumber(meta.fields.drain_deadline)
    local left = sum_of(u, address)
    if (left == 0 and at - since >= settle) or (deadline and at >= deadline) then
      if what == 'remove' then
        take_away(u, at, 'drain', 'remove', address, before)
      else
        put_state(meta, 'disable', expired)
        put_reason(meta, 'manual', at)
        put_drain(meta)
        put(meta, 'updated_at', ms(at))
        local text = text_of(meta)
        redis.call('HSET', u.meta, address, text)
        record(u, at, 'drain', 'disable', address, before, text)
      end
      over[#over + 1] = {address, what, left}
    end
  end
end
return over
