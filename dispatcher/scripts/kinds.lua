-- Purpose: read of what type some keys are, and how long they have to live.
--
-- Guarantee: as of one instant, in one reply. Writes nothing.
--
-- KEYS  1.. the keys
-- ARGV  none
-- Returns for each its type ('none' if there is no such key) and its time to live (ms, as PTTL says it), in turn

local found = {}
for i = 1, #KEYS do
  found[2 * i - 1] = redis.call('TYPE', KEYS[i]).ok
  found[2 * i] = redis.call('PTTL', KEYS[i])
end
return found
