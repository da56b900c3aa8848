-- Purpose: store submissions in the intake streams of one pool, and tell at once which of them were submitted before, and
-- which there is no room for.
--
-- Guarantee: atomic, and safe to repeat. Each submission is judged by itself, in their order: a keyed task whose record
-- exists, or whose submission still waits to be read, is not stored again and never refused; where a bound is in force for
-- the pool or for its capability and so many tasks wait already, it is refused, and nothing of it is kept. No bound is ever
-- exceeded, and nothing is refused below it. A repetition of a call (its reply was lost) stores nothing where there are
-- bounds, and is told the same. Without bounds an unkeyed task is stored each time: its id is new, and the leader, which
-- knows the id by then, drops the repetition.
--
-- The sets hold the ids of all tasks that wait, unread ones from here on; the commit script takes out what waits no longer.
-- An id is in a set once, so nothing is counted twice. Scopes without a bound have none.
--
-- KEYS  1-4 streams  5 bounds  6 what this call has decided  7 set of all waiting tasks of the pool
--       8.. for each capability its set of waiting tasks
--       then for each keyed task its record and its marker; referred to by their position
-- ARGV  1 time to live of a marker (ms)  2 time to live of what this call has decided (ms)
--       3 number of capabilities, then their names
--       then runs of tasks that are alike, of each 4 values and 2 for each task:
--         stream, number of its capability, position of the first task's record among the keys (0 = no keys; the marker is
--         behind it, and then those of the next task), number of tasks
--         id, body
-- Returns {positions (1..) of the tasks that were known, refusals: position, bounded by ('pool' or 'capability'), bound,
--         number that waits, of each}

local n = tonumber(ARGV[3])
local bounded = redis.call('HLEN', KEYS[5]) > 0
local scopes = {}
if bounded then
  local decided = redis.call('GET', KEYS[6])
  if decided then
    return cjson.decode(decided)
  end
  local most = redis.call('HMGET', KEYS[5], '*', unpack(ARGV, 4, 3 + n))
  for i = 0, n do
    local bound = tonumber(most[i + 1] or nil)
    if bound then
      scopes[i] = { key = KEYS[7 + i], bound = bound, waiting = redis.call('SCARD', KEYS[7 + i]) }
    end
  end
end

local function full(capability)
  for _, i in ipairs({ 0, capability }) do
    local scope = scopes[i]
    if scope and scope.waiting >= scope.bound then
      return i == 0 and 'pool' or 'capability', scope
    end
  end
end

local known, refused = {}, {}
local position = 0
local i = 4 + n
while i < #ARGV do
  local stream, capability, record = KEYS[tonumber(ARGV[i])], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  local stop = i + 2 + 2 * tonumber(ARGV[i + 3])
  for at = i + 4, stop, 2 do
    position = position + 1
    local by, scope
    if bounded then
      by, scope = full(capability)
    end
    if record > 0 and redis.call('EXISTS', KEYS[record], KEYS[record + 1]) > 0 then
      known[#known + 1] = position
    elseif by then
      for _, said in ipairs({ position, by, scope.bound, scope.waiting }) do
        refused[#refused + 1] = said
      end
    else
      if record > 0 then
        redis.call('SET', KEYS[record + 1], '1', 'PX', ARGV[1])
      end
      redis.call('XADD', stream, '*', '__data__', ARGV[at + 1])
      if bounded then
        for _, s in ipairs({ 0, capability }) do
          if scopes[s] then
            scopes[s].waiting = scopes[s].waiting + redis.call('SADD', scopes[s].key, ARGV[at])
          end
        end
      end
    end
    if record > 0 then
      record = record + 2
    end
  end
  i = stop + 2
end
if bounded then
  redis.call('SET', KEYS[6], cjson.encode({ known, refused }), 'PX', ARGV[2])
end
return { known, refused }
