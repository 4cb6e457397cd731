-- ARGV: how many seconds a heartbeat lasts, the revision wanted.  Answers the number
-- of servers whose last one is older, and the addresses that were taken out now.
local u, ttl, at = upstream(1), tonumber(ARGV[1]), time()
local stale = expect(u, ARGV[2])
if stale then return stale end
thaw(u, at)
local beats, late = redis.call('HGETALL', u.heartbeat), {}
local beat_of = {}
for i = 1, #beats, 2 do beat_of[beats[i]] = tonumber(beats[i + 1]) end

local addresses = redis.call('HKEYS', u.meta)
table.sort(addresses)
local count = 0
for _, address in ipairs(addresses) do
  local beat = beat_of[address]
  if not beat then
    -- Never heard, or deleted by hand: its time begins now.
    redis.call('HSET', u.heartbeat, address, ms(at))
  elseif at - beat > ttl then
    local before = redis.call('HGET', u.meta, address)
    local meta = parse(before)
    if meta and meta.fields.heartbeat ~= false then
      count = count + 1
      local intent, expired = state_of(meta)
      if intent == 'enable' and not expired then
        put_state(meta, intent, true)
        put_reason(meta, 'heartbeat_timeout', at)
        local text = text_of(meta)
        redis.call('HSET', u.meta, address, text)
        record(u, at, 'heartbeat', 'expire', address, before, text)
        late[#late + 1] = address
      end
    end
  end
end
return {count, late}
