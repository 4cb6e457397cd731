-- Heartbeats' clocks stand still while no node is there to hear them.

local function move(u, at, gap)
  local beats = redis.call('HGETALL', u.heartbeat)
  for i = 1, #beats, 2 do
    local beat = tonumber(beats[i + 1])
    if beat then redis.call('HSET', u.heartbeat, beats[i], ms(math.min(at, beat + gap))) end
  end
end

-- The gap is judged by the lease of the node that was heard last.
local function thaw(u, at)
  local known = redis.call('HMGET', u.sync, 'contact', 'lease')
  local contact = tonumber(known[1])
  if contact and at - contact > (tonumber(known[2]) or 0) then
    move(u, at, at - contact)
    redis.call('HSET', u.sync, 'contact', ms(at))
  end
end

-- Before the first contact ever, somebody else kept the heartbeats: the newest
-- of them tells when that ended.
local function last_beat(u)
  local newest
  for _, beat in ipairs(redis.call('HVALS', u.heartbeat)) do
    newest = math.max(newest or 0, tonumber(beat) or 0)
  end
  return newest
end

local function heard(u, at, lease)
  local contact = tonumber(redis.call('HGET', u.sync, 'contact')) or last_beat(u)
  if contact and at - contact > lease then move(u, at, at - contact) end
  redis.call('HSET', u.sync, 'contact', ms(at), 'lease', lease)
end
