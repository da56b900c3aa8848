-- Purpose: delete consumers of a group that are gone: idle for long, with nothing pending. With that a group too, if it
-- is to go and has no others.
--
-- Guarantee: atomic; deleting a consumer drops what is pending for it, so none that has anything pending is deleted. One
-- that comes back is made again by its first read.
--
-- KEYS  1 stream
-- ARGV  1 group  2 idle time from which on a consumer is gone (ms)  3 only this consumer ('' = any)  4 '1' if the group
--       goes with its last consumer  5 a consumer to keep in any case ('' = none)
-- Returns how many consumers and groups were deleted

local gone, left = 0, 0
for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local one = {}
  for i = 1, #info, 2 do
    one[info[i]] = info[i + 1]
  end
  local meant = (ARGV[3] == '' or ARGV[3] == one['name']) and ARGV[5] ~= one['name']
  if meant and one['pending'] == 0 and one['idle'] >= tonumber(ARGV[2]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], one['name'])
    gone = gone + 1
  else
    left = left + 1
  end
end
if ARGV[4] == '1' and left == 0 then
  redis.call('XGROUP', 'DESTROY', KEYS[1], ARGV[1])
  gone = gone + 1
end
return gone
