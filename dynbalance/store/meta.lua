-- A server's JSON text: read with cjson, changed member by member.
-- Encoding the decoded table again would turn [] into {} and cut long numbers;
-- so the text of every member that is not ours stays as it is.

local function string_end(text, at)
  local i = at + 1
  while true do
    local hit = string.find(text, '["\\]', i)
    if not hit then return #text end
    if string.sub(text, hit, hit) == '"' then return hit end
    i = hit + 2
  end
end

local function value_end(text, at)
  local first = string.sub(text, at, at)
  if first == '"' then return string_end(text, at) end
  if first ~= '{' and first ~= '[' then
    return (string.find(text, '[,}%s]', at) or #text + 1) - 1
  end
  local depth, i = 0, at
  while true do
    local hit = string.find(text, '["{}%[%]]', i)
    if not hit then return #text end
    local mark = string.sub(text, hit, hit)
    if mark == '"' then
      hit = string_end(text, hit)
    elseif mark == '{' or mark == '[' then
      depth = depth + 1
    else
      depth = depth - 1
      if depth == 0 then return hit end
    end
    i = hit + 1
  end
end

-- nil for what is not a JSON object: such a field is no server.
local function parse(text)
  local ok, fields = pcall(cjson.decode, text)
  if not ok or type(fields) ~= 'table' or not string.find(text, '^%s*{') then return nil end
  local meta = {fields = fields, names = {}, raw = {}}
  local at = string.find(text, '"', 1, true)
  while at do
    local stop = string_end(text, at)
    local name = string.sub(text, at, stop)
    local from = string.find(text, '[^%s:]', stop + 1)
    stop = value_end(text, from)
    meta.names[#meta.names + 1] = name
    meta.raw[#meta.raw + 1] = string.sub(text, from, stop)
    at = string.find(text, '"', stop + 1, true)
  end
  return meta
end

-- raw is JSON text; nil takes the member out.
local function put(meta, name, raw)
  name = '"' .. name .. '"'
  for i = #meta.names, 1, -1 do
    if meta.names[i] == name then
      if raw then
        meta.raw[i] = raw
        return
      end
      table.remove(meta.names, i)
      table.remove(meta.raw, i)
    end
  end
  if raw then
    meta.names[#meta.names + 1] = name
    meta.raw[#meta.raw + 1] = raw
  end
end

local function text_of(meta)
  local members = {}
  for i, name in ipairs(meta.names) do members[i] = name .. ':' .. meta.raw[i] end
  return '{' .. table.concat(members, ',') .. '}'
end

-- What was ordered and what was observed.  `enabled` is what a writer that does
-- not know our two fields changes; where it contradicts them, it is the newer.
local function state_of(meta)
  local fields = meta.fields
  local serving, expired = fields.enabled ~= false, fields.expired == true
  if fields.intent == 'enable' and serving == not expired then return 'enable', expired end
  if fields.intent == 'disable' and not serving then return 'disable', expired end
  if fields.intent == 'drain' and not serving then return 'drain', expired end
  if serving then return 'enable', false end
  if fields.disabled_reason == 'heartbeat_timeout' then return 'enable', true end
  return 'disable', false
end

local function put_state(meta, intent, expired)
  put(meta, 'intent', '"' .. intent .. '"')
  put(meta, 'expired', tostring(expired))
  put(meta, 'enabled', tostring(intent == 'enable' and not expired))
end

-- Why a server does not serve, and since when; no reason: it serves.
local function put_reason(meta, reason, at)
  put(meta, 'disabled_at', reason and ms(at))
  put(meta, 'disabled_reason', reason and '"' .. reason .. '"')
end

-- When a drain is over at the latest, and what comes then.
local function put_drain(meta, deadline, what)
  put(meta, 'drain_deadline', deadline and ms(deadline))
  put(meta, 'drain_then', what and '"' .. what .. '"')
end

-- One server changed: a line of the history.  All that one script changes in an
-- upstream has one revision.
local function record(u, at, by, action, address, before, after)
  u.part = (u.part or 0) + 1
  if u.part == 1 then u.now = redis.call('INCR', u.revision) end
  redis.call('XADD', u.history, 'MAXLEN', '~', 10000, '*', 'at', ms(at), 'by', by,
    'action', action, 'address', address, 'before', before, 'after', after,
    'revision', u.now, 'part', u.part)
end

-- A server as the caller hears of it; the counts' place depends on nothing else.
local function server(u, address, text)
  return {text, redis.call('HGET', u.heartbeat, address), redis.call('ZSCORE', u.zset, address)}
end
