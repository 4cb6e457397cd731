-- What the store's clock says after a time in which no node was heard, and after it
-- was set.

-- A clock that is 10 ms behind the last contact was set back; less is rounding.
local BACK = 0.01

-- Heartbeats' clocks stand still while no node is there to hear them.
local function move(u, at, gap)
  local beats = redis.call('HGETALL', u.heartbeat)
  for i = 1, #beats, 2 do
    local beat = tonumber(beats[i + 1])
    if beat then redis.call('HSET', u.heartbeat, beats[i], ms(math.min(at, beat + gap))) end
  end
end

-- The clock was set: every moment that is waited for, or counted from, goes with it.
local function follow_clock(u, at, step)
  move(u, at, step)
  for _, node in ipairs(redis.call('ZRANGE', u.nodes, 0, -1)) do
    redis.call('ZINCRBY', u.nodes, step, node)
  end
  local claims = redis.call('HGETALL', u.probers)
  for i = 1, #claims, 2 do
    local till, who = string.match(claims[i + 1], '^(%S+) (.*)$')
    if tonumber(till) then
      redis.call('HSET', u.probers, claims[i], ms(till + step) .. ' ' .. who)
    end
  end
  local metas = redis.call('HGETALL', u.meta)
  for i = 1, #metas, 2 do
    local meta = parse(metas[i + 1])
    if meta and meta.fields.intent == 'drain' then
      for _, name in ipairs({'disabled_at', 'drain_deadline'}) do
        local moment = tonumber(meta.fields[name])
        if moment then put(meta, name, ms(moment + step)) end
      end
      redis.call('HSET', u.meta, metas[i], text_of(meta))
    end
  end
end

-- To be called before a moment is written down, too: one of the new time must not be
-- taken for one of the old.  The gap is judged by the lease of the node that was heard last.  Who calls knows
-- of no outage, so that a gap is a step of the clock.
local function thaw(u, at)
  local known = redis.call('HMGET', u.sync, 'contact', 'lease')
  local contact = tonumber(known[1])
  if not contact then return end
  local gap = at - contact
  if gap > (tonumber(known[2]) or 0) or gap < -BACK then
    follow_clock(u, at, gap)
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

-- Who reports in full has been away, or is new; nobody else hears of a gap.
local function heard(u, at, lease, full)
  local contact = tonumber(redis.call('HGET', u.sync, 'contact')) or last_beat(u)
  local gap = contact and at - contact or 0
  if gap < -BACK or (gap > lease and not full) then
    follow_clock(u, at, gap)
  elseif gap > lease then
    move(u, at, gap)
  end
  redis.call('HSET', u.sync, 'contact', ms(at), 'lease', lease)
end
