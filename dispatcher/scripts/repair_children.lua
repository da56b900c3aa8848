-- Purpose: let a list of children stay as long as its task lives, and expire when that has ended. Used by an audit.
--
-- Guarantee: atomic; a list that is well is left as it is.
--
-- KEYS  1 list  2 record of its task
-- ARGV  1 time to live if the task is not live and the list has none (ms)
-- Returns 'OK'

local status = string.match(redis.call('HGET', KEYS[2], 'state') or '', '^%u+')
if status == 'PENDING' or status == 'ASSIGNED' or status == 'RUNNING' then
  redis.call('PERSIST', KEYS[1])
elseif redis.call('PTTL', KEYS[1]) == -1 then
  redis.call('PEXPIRE', KEYS[1], ARGV[1])
end
return 'OK'
