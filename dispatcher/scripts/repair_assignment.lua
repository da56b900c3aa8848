-- Purpose: delete an entry of an agent's stream by which no task is assigned. Used by an audit, whoever leads.
--
-- Guarantee: atomic; an assignment that holds is never deleted.
--
-- KEYS  1 record of its task  2 assignments stream
-- ARGV  1 agent  2 entry
-- Returns 'OK', or with nothing written 'MOVED'

local task = redis.call('HMGET', KEYS[1], 'state', 'entry')
local agent = string.match(task[1] or '', '^ASSIGNED/%d+/([^/]*)/')
if agent == ARGV[1] and task[2] == ARGV[2] then
  return 'MOVED'
end
redis.call('XDEL', KEYS[2], ARGV[2])
return 'OK'
