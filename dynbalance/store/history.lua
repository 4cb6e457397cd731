-- ARGV: 'before' or 'after', an id (empty: from the newest), the number of lines.
-- Answers the id of the oldest line, and lines.
local u, id, limit = upstream(1), ARGV[2], ARGV[3]
local oldest = redis.call('XRANGE', u.history, '-', '+', 'COUNT', 1)[1]
local lines
if ARGV[1] == 'after' then
  lines = redis.call('XRANGE', u.history, '(' .. id, '+', 'COUNT', limit)
else
  local newest = id == '' and '+' or '(' .. id
  lines = redis.call('XREVRANGE', u.history, newest, '-', 'COUNT', limit)
end
return {oldest and oldest[1] or '', lines}
