-- Purpose: become the leader of a pool, if nobody else is.
--
-- Guarantee: no two leaders ever hold the same token, not even after the server lost everything: the epoch is greater than
-- any this server remembers and at least the server's time, and the token carries the caller's nonce. Whoever holds the lease
-- with the same nonce gets his own token again (the reply of an earlier call was lost).
--
-- KEYS  1 leader  2 epoch
-- ARGV  1 dispatcher id  2 nonce  3 lease (ms)
-- Returns {1, token, epoch, server time (ms)} when leading, {0, token of the leader, its remaining lease (ms), server time}

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local held = redis.call('GET', KEYS[1])
if held then
  local epoch, nonce = string.match(held, '^(%d+)|[^|]*|(.*)$')
  if nonce == ARGV[2] then
    redis.call('PEXPIRE', KEYS[1], ARGV[3])
    return { 1, held, tonumber(epoch), now }
  end
  return { 0, held, redis.call('PTTL', KEYS[1]), now }
end
local epoch = math.max(tonumber(redis.call('GET', KEYS[2]) or '0') + 1, now)
local token = string.format('%.0f', epoch) .. '|' .. ARGV[1] .. '|' .. ARGV[2]
redis.call('SET', KEYS[2], string.format('%.0f', epoch))
redis.call('SET', KEYS[1], token, 'PX', ARGV[3])
return { 1, token, epoch, now }
