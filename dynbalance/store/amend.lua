-- Edits of several upstreams, all or none.
-- KEYS: for each upstream its keys.  ARGV: who, action, then for each upstream the
-- revision wanted, n, and n times address, the order as a JSON object (empty: it is
-- to be no server), intent, and of a drain its seconds and what comes then.
-- Answers the revisions.
local by, action, at, next_arg = ARGV[1], ARGV[2], time(), 3

local function edit(u, address, order, intent, seconds, what)
  local before = redis.call('HGET', u.meta, address)
  local meta = before and parse(before)
  if order == '' then
    if before then take_away(u, at, by, action, address, before) end
  elseif not meta then
    meta = parse(order)
    put_intent(meta, intent, false, at, seconds, what)
    admit(u, at, by, action, address, before, meta)
  else
    local was = state_of(meta)
    local _, expired = reorder(u, address, meta, parse(order), at)
    if intent ~= was or intent == 'drain' then
      put_intent(meta, intent, expired, at, seconds, what)
    end
    put(meta, 'updated_at', ms(at))
    local text = text_of(meta)
    redis.call('HSET', u.meta, address, text)
    record(u, at, by, action, address, before, text)
  end
end

local all, firsts = {}, {}
for first = 1, #KEYS, FIXED do
  local u = upstream(first)
  local stale = expect(u, ARGV[next_arg])
  if stale then return stale end
  thaw(u, at)
  all[#all + 1], firsts[#firsts + 1] = u, next_arg + 2
  next_arg = next_arg + 2 + 5 * tonumber(ARGV[next_arg + 1])
end
firsts[#firsts + 1] = next_arg + 2

local revisions = {}
for n, u in ipairs(all) do
  for i = firsts[n], firsts[n + 1] - 3, 5 do
    edit(u, ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4])
  end
  revisions[n] = redis.call('GET', u.revision) or '0'
end
return revisions
