-- Purpose: keep the lead (lease > 0) or give it back (lease = 0).
--
-- Guarantee: touches the lease only while it is the caller's own.
--
-- KEYS  1 leader
-- ARGV  1 token  2 lease (ms), 0 to give it back
-- Returns {1, server time (ms)} if the lease was the caller's, {0, server time} if not

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return { 0, now }
end
if ARGV[2] == '0' then
  redis.call('DEL', KEYS[1])
else
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return { 1, now }
