-- Purpose: forget the delivery of an entry that is in its stream no more. Used by an audit, whoever leads.
--
-- Guarantee: atomic; the delivery of an entry that is there is never forgotten.
--
-- KEYS  1 stream
-- ARGV  1 group  2 entry
-- Returns 'OK', or with nothing written 'MOVED'

if #redis.call('XRANGE', KEYS[1], ARGV[2], ARGV[2]) > 0 then
  return 'MOVED'
end
redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
return 'OK'
