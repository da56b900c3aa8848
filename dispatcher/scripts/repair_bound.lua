-- Purpose: let a task count for a bound if, and only if, it waits. Used by an audit, whoever leads.
--
-- Guarantee: atomic. One that is not PENDING is taken out only while no submission is unread, for it may be among them.
--
-- KEYS  1 set of waiting tasks  2 record of the task  3 bounds  4-7 intake streams
-- ARGV  1 task  2 scope
-- Returns 'OK', or with nothing written 'MOVED'

if redis.call('HEXISTS', KEYS[3], ARGV[2]) == 0 then
  return 'MOVED'
end
if string.sub(redis.call('HGET', KEYS[2], 'state') or '', 1, 8) == 'PENDING/' then
  redis.call('SADD', KEYS[1], ARGV[1])
  return 'OK'
end
for i = 4, 7 do
  if redis.call('XLEN', KEYS[i]) > 0 then
    return 'MOVED'
  end
end
redis.call('SREM', KEYS[1], ARGV[1])
return 'OK'
