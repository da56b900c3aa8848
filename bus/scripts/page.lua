-- Purpose: read one page of a sorted set, from behind a member that may be there no more.
--
-- Guarantee: exact, for it is one step: no member that stays is skipped or told twice, whatever has come and gone before
-- it, and however many have the same score. Members of one score are ordered by their bytes, as the server orders them.
-- (Its own comparison of strings would go by the locale.) Writes nothing.
--
-- KEYS  1 sorted set
-- ARGV  1 score behind which the page begins ('' = from the start)  2 member with that score
--       3 most members  4 'asc' or 'desc'
-- Returns members and scores, in turn

local function before(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then
      return x < y
    end
  end
  return #a < #b
end

local key, score, member, count = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3])
local desc = ARGV[4] == 'desc'
local size = redis.call('ZCARD', key)
local low = desc and size or 0
if score ~= '' then
  low = redis.call('ZCOUNT', key, '-inf', '(' .. score)
  local high = low + redis.call('ZCOUNT', key, score, score)
  while low < high do
    local middle = math.floor((low + high) / 2)
    local found = redis.call('ZRANGE', key, middle, middle)[1]
    if before(found, member) or (not desc and found == member) then
      low = middle + 1
    else
      high = middle
    end
  end
end
if not desc then
  return redis.call('ZRANGE', key, low, low + count - 1, 'WITHSCORES')
end
if low == 0 then
  return {}
end
return redis.call('ZRANGE', key, size - low, size - low + count - 1, 'REV', 'WITHSCORES')
