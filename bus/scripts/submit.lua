-- Purpose: store submissions in the intake streams of one pool, and tell at once which of them were submitted before.
--
-- Guarantee: all or nothing, and safe to repeat. A keyed task whose record exists, or whose submission still waits to be
-- read, is not stored again. An unkeyed one is stored each time: its id is new, and a repetition of it (the reply was
-- lost) is dropped by the leader, which knows the id by then.
--
-- KEYS  1.. streams, and for each keyed task its record and its marker; referred to by their position
-- ARGV  1 time to live of a marker (ms)
--       then per task, 4 values:
--         stream, record (0 = no key), marker (0 = no key), body
-- Returns the positions (1..) of the tasks that were known

local known = {}
for i = 2, #ARGV, 4 do
  local record, marker = tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  if record > 0 and (redis.call('EXISTS', KEYS[record]) == 1
      or not redis.call('SET', KEYS[marker], '1', 'NX', 'PX', ARGV[1])) then
    known[#known + 1] = (i + 2) / 4
  else
    redis.call('XADD', KEYS[tonumber(ARGV[i])], '*', '__data__', ARGV[i + 3])
  end
end
return known
