-- Purpose: let a task stand in just those lists in which one of its state must stand, and its record live as long as it
-- must. Used by an audit, whoever leads.
--
-- Guarantee: all or nothing, and only while the task's state is what the audit has seen; so it never undoes what a leader
-- has decided meanwhile. It writes nothing that a leader's commits compare, and changes no score that is there.
--
-- KEYS  1 record  2 pending  3 delayed  4 leases  5 finished  6 dead
-- ARGV  1 id  2 state that was seen ('' = no record)  3-7 score in each list ('' = it must not stand there)
--       8 time to live of the record if it has none (ms), '' = it must have none
-- Returns 'OK', or with nothing written 'MOVED'

if (redis.call('HGET', KEYS[1], 'state') or '') ~= ARGV[2] then
  return 'MOVED'
end
for i = 2, 6 do
  local score = ARGV[i + 1]
  if score == '' then
    redis.call('ZREM', KEYS[i], ARGV[1])
  else
    redis.call('ZADD', KEYS[i], 'NX', score, ARGV[1])
  end
end
if ARGV[8] == '' then
  redis.call('PERSIST', KEYS[1])
elseif redis.call('PTTL', KEYS[1]) == -1 then
  redis.call('PEXPIRE', KEYS[1], ARGV[8])
end
return 'OK'
