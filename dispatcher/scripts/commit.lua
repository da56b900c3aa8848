-- Purpose: store what one pass of the scheduler decided, and consume the input that it came from.
--
-- Guarantee: all or nothing, and once. Every check stands before the first write, for Redis does not roll back: the leader's
-- token (fence), then whether this very call was made before (its reply was lost: it changes nothing and answers OK), then
-- each task's guard. A task that was to be new and exists stops the call: what was decided of it is void, and so is what was
-- to be said of it. A record that has ended expires; one that is given a new life (its guard before is FAILED) does no more.
-- An input entry is acknowledged and deleted in the same step as its effect is stored.
--
-- KEYS  1 leader  2 pending  3 delayed  4 leases  5 finished  6 dead  7 events  8 agents (index)
--       9 the latest call
--       10.. any further key, referred to by its position in KEYS
-- ARGV  1 token of the leader            2 consumer group
--       3 now (ms)                       4 retention of finished tasks (ms)
--       5 body for events ('' for none)  6 length at which events is capped
--       7 age at which events are dropped (ms), counted back from the entry that is written
--       8 time to live of assignments streams (ms), from their last entry on
--       9 id of this call
--       10 number of tasks  11 number of acks  12 number of messages  13 number of agents  14 number of notes
--       15 number of changes of sets of waiting tasks
--       then per task, 15 values:
--         key, id, guard before ('' = must not exist), guard after, place (w d a f x, or g: the record is deleted),
--         score there, run,
--         spec ('' = keep), output ('' = none), key of the stream to release its entry from (0 = none),
--         key of the stream to hand it over on (0 = none; the next value is then '')
--         head of the assignment: JSON up to the spec, which follows it, and a closing brace
--         key of the marker that its submission left (0 = none)
--         key of the parent's list of children to enter it in (0 = none)
--         key of a list of children whose parent has ended, to be kept for the retention, or, if it has been given a
--         new life, for good (0 = none)
--       then per ack: key, number of ids, ids
--       then per message: key, least time that the stream has to live now (ms, 0 = none), cap (0 = none), body
--       then per agent, 6 values:
--         key, id, record ('' = forget), score in the index, keys of its assignments and control streams (0 = keep)
--       then per note: key, field, value ('' = forget)
--       then per set of waiting tasks: key, what ('+' adds, '-' removes, '0' empties), number of ids, ids
-- Returns {'OK'}, or with nothing written {'FENCED', token found or ''}, {'CONFLICT', id, guard found or ''},
--         or {'KNOWN', position (1..) of each task that was to be new and exists}

if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return { 'FENCED', redis.call('GET', KEYS[1]) or '' }
end

if redis.call('GET', KEYS[9]) == ARGV[9] then
  return { 'OK' }
end

local tasks, acks, messages = tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12])
local agents, notes, queues = tonumber(ARGV[13]), tonumber(ARGV[14]), tonumber(ARGV[15])
local STRIDE = 15
local FIRST = 16

local entries, known = {}, { 'KNOWN' }
for i = 1, tasks do
  local at = FIRST + (i - 1) * STRIDE
  local before = ARGV[at + 2]
  local found
  if ARGV[at + 9] ~= '0' then
    local pair = redis.call('HMGET', KEYS[tonumber(ARGV[at])], 'state', 'entry')
    found, entries[i] = pair[1], pair[2]
  else
    found = redis.call('HGET', KEYS[tonumber(ARGV[at])], 'state')
  end
  if (found or '') ~= before then
    if before ~= '' then
      return { 'CONFLICT', ARGV[at + 1], found or '' }
    end
    known[#known + 1] = i
  end
end

if #known > 1 then
  return known
end

local index = { w = KEYS[2], d = KEYS[3], a = KEYS[4] }
local given = {}
for i = 1, tasks do
  local at = FIRST + (i - 1) * STRIDE
  local key, id = KEYS[tonumber(ARGV[at])], ARGV[at + 1]
  local place, score, spec, output = ARGV[at + 4], ARGV[at + 5], ARGV[at + 7], ARGV[at + 8]
  if entries[i] then
    redis.call('XDEL', KEYS[tonumber(ARGV[at + 9])], entries[i])
  end
  local was = string.sub(ARGV[at + 2], 1, 1)
  if was == 'F' then
    redis.call('ZREM', KEYS[5], id)
    redis.call('ZREM', KEYS[6], id)
    redis.call('PERSIST', key)
  end
  local handover = ARGV[at + 10]
  if place == 'g' then
    redis.call('DEL', key)
  elseif handover ~= '0' then
    local body = spec
    if body == '' then
      body = redis.call('HGET', key, 'spec') or 'null'
    end
    local stream = KEYS[tonumber(handover)]
    local entry = redis.call('XADD', stream, '*', '__data__', ARGV[at + 11] .. body .. '}')
    given[stream] = true
    if spec ~= '' then
      redis.call('HSET', key, 'state', ARGV[at + 3], 'run', ARGV[at + 6], 'spec', spec, 'entry', entry)
    else
      redis.call('HSET', key, 'state', ARGV[at + 3], 'run', ARGV[at + 6], 'entry', entry)
    end
  elseif spec ~= '' then
    redis.call('HSET', key, 'state', ARGV[at + 3], 'run', ARGV[at + 6], 'spec', spec)
  elseif output ~= '' then
    redis.call('HSET', key, 'state', ARGV[at + 3], 'run', ARGV[at + 6], 'result', output)
  else
    redis.call('HSET', key, 'state', ARGV[at + 3], 'run', ARGV[at + 6])
  end
  if ARGV[at + 12] ~= '0' then
    redis.call('DEL', KEYS[tonumber(ARGV[at + 12])])
  end
  if ARGV[at + 13] ~= '0' then
    redis.call('ZADD', KEYS[tonumber(ARGV[at + 13])], ARGV[3], id)
  end
  if ARGV[at + 14] ~= '0' then
    if was == 'F' and index[place] then
      redis.call('PERSIST', KEYS[tonumber(ARGV[at + 14])])
    else
      redis.call('PEXPIRE', KEYS[tonumber(ARGV[at + 14])], ARGV[4])
    end
  end
  if was == 'P' and place ~= 'w' then
    redis.call('ZREM', KEYS[2], id)
  end
  if was == 'P' and place ~= 'd' then
    redis.call('ZREM', KEYS[3], id)
  end
  if (was == 'A' or was == 'R') and place ~= 'a' then
    redis.call('ZREM', KEYS[4], id)
  end
  if index[place] then
    if not (place == 'a' and was == 'A' and handover == '0') then
      redis.call('ZADD', index[place], score, id)
    end
  elseif place ~= 'g' then
    redis.call('ZADD', KEYS[5], score, id)
    if place == 'x' then
      redis.call('ZADD', KEYS[6], score, id)
    end
    redis.call('PEXPIRE', key, ARGV[4])
  end
end
for stream in pairs(given) do
  redis.call('PEXPIRE', stream, ARGV[8])
end

local at = FIRST + tasks * STRIDE
for _ = 1, acks do
  local key, n = KEYS[tonumber(ARGV[at])], tonumber(ARGV[at + 1])
  local ids = {}
  for i = 1, n do
    ids[i] = ARGV[at + 1 + i]
  end
  redis.call('XACK', key, ARGV[2], unpack(ids))
  redis.call('XDEL', key, unpack(ids))
  at = at + 2 + n
end
for _ = 1, messages do
  local key, ttl, cap = KEYS[tonumber(ARGV[at])], ARGV[at + 1], ARGV[at + 2]
  if cap == '0' then
    redis.call('XADD', key, '*', '__data__', ARGV[at + 3])
  else
    redis.call('XADD', key, 'MAXLEN', '~', cap, '*', '__data__', ARGV[at + 3])
  end
  if ttl ~= '0' and redis.call('PTTL', key) < tonumber(ttl) then
    redis.call('PEXPIRE', key, ttl)
  end
  at = at + 4
end
for _ = 1, agents do
  local key, id, record = KEYS[tonumber(ARGV[at])], ARGV[at + 1], ARGV[at + 2]
  if record == '' then
    redis.call('DEL', key, KEYS[tonumber(ARGV[at + 4])], KEYS[tonumber(ARGV[at + 5])])
    redis.call('ZREM', KEYS[8], id)
  else
    redis.call('HSET', key, 'record', record)
    redis.call('ZADD', KEYS[8], ARGV[at + 3], id)
  end
  at = at + 6
end
for _ = 1, notes do
  local key, field, value = KEYS[tonumber(ARGV[at])], ARGV[at + 1], ARGV[at + 2]
  if value == '' then
    redis.call('HDEL', key, field)
  else
    redis.call('HSET', key, field, value)
  end
  at = at + 3
end
for _ = 1, queues do
  local key, what, n = KEYS[tonumber(ARGV[at])], ARGV[at + 1], tonumber(ARGV[at + 2])
  local ids = {}
  for i = 1, n do
    ids[i] = ARGV[at + 2 + i]
  end
  if what == '0' then
    redis.call('UNLINK', key)
  else
    redis.call(what == '+' and 'SADD' or 'SREM', key, unpack(ids))
  end
  at = at + 3 + n
end
if ARGV[5] ~= '' then
  local entry = redis.call('XADD', KEYS[7], 'MAXLEN', '~', ARGV[6], '*', '__data__', ARGV[5])
  local oldest = tonumber(string.match(entry, '^%d+')) - tonumber(ARGV[7])
  redis.call('XTRIM', KEYS[7], 'MINID', '~', string.format('%.0f', math.max(0, oldest)))
end
redis.call('SET', KEYS[9], ARGV[9])
return { 'OK' }
