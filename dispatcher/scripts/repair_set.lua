-- Purpose: delete a set of waiting tasks that no bound is held by. Used by an audit, whoever leads.
--
-- Guarantee: atomic. A set of which the bound is in force, or that has grown since (it is being filled), is left alone.
--
-- KEYS  1 set of waiting tasks  2 bounds
-- ARGV  1 scope  2 how many members were seen
-- Returns 'OK', or with nothing written 'MOVED'

if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 1 or redis.call('SCARD', KEYS[1]) ~= tonumber(ARGV[2]) then
  return 'MOVED'
end
redis.call('UNLINK', KEYS[1])
return 'OK'
