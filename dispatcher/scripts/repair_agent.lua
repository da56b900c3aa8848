-- Purpose: let the list of agents name an agent if, and only if, it has a record. Used by an audit, whoever leads.
--
-- Guarantee: atomic; of an agent that is well nothing changes.
--
-- KEYS  1 record  2 list of agents
-- ARGV  1 id  2 score if it is not listed
-- Returns 'OK'

if redis.call('EXISTS', KEYS[1]) == 1 then
  redis.call('ZADD', KEYS[2], 'NX', ARGV[2], ARGV[1])
else
  redis.call('ZREM', KEYS[2], ARGV[1])
end
return 'OK'
