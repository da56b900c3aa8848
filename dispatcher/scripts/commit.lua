-- Purpose: store what one pass of the scheduler decided, and consume the input that it came from.
--
-- Guarantee: all or nothing, once, and in order. Every check stands before the first write, for Redis does not roll back:
-- the leader's token (fence); then the call's number in its chain: one that was made before (its reply was lost) changes
-- nothing and answers OK, and one whose predecessor was not made is refused, so that calls may be sent without waiting for
-- the answers to those before them; then each task's guard. A task that was to be new and exists stops the call: what was
-- decided of it is void, and so is what was to be said of it. A record that has ended expires; one that is given a new life
-- (its guard before is FAILED) does no more. An input entry is acknowledged and deleted in the same step as its effect is
-- stored.
--
-- KEYS  1 leader  2 pending  3 delayed  4 leases  5 finished  6 dead  7 events  8 agents (index)
--       9 the latest call
--       10.. the record of each task, in the order of the tasks
--       then any further key, referred to by its position in KEYS
-- ARGV  1 token of the leader            2 consumer group
--       3 now (ms)                       4 retention of finished tasks (ms)
--       5 body for events ('' for none)  6 length at which events is capped
--       7 age at which events are dropped (ms), counted back from the entry that is written
--       8 time to live of assignments streams (ms), from their last entry on
--       9 chain of calls that this one is of  10 its number there, counted from 1
--       11 number of tasks  12 number of acks  13 number of messages  14 number of agents  15 number of notes
--       16 number of changes of sets of waiting tasks
--       then per task its kind, and
--         of kind w, accepted and waiting:       id, '', guard after, score, run, spec
--         of kind a, assigned, perhaps at once:  id, guard before, guard after, time, run, spec ('' = keep),
--                                                key of the stream to hand it over on, head of the assignment
--         of kind f, COMPLETED:                  id, guard before, guard after, time, run, output,
--                                                key of the stream to release its entry from (0 = none)
--         of kind g, any other change:           id, guard before ('' = must not exist), guard after,
--           place (w d a f x, or g: the record is deleted), score there, run,
--           spec ('' = keep), output ('' = none), key of the stream to release its entry from (0 = none),
--           key of the stream to hand it over on (0 = none; the next value is then '')
--           head of the assignment: JSON up to the spec, which follows it, and a closing brace
--           key of the marker that its submission left (0 = none)
--           key of the parent's list of children to enter it in (0 = none)
--           key of a list of children whose parent has ended, to be kept for the retention, or, if it has been given a
--           new life, for good (0 = none)
--       then per ack: key, number of ids, ids
--       then per message: key, least time that the stream has to live now (ms, 0 = none), cap (0 = none), body
--       then per agent, 6 values:
--         key, id, record ('' = forget), score in the index, keys of its assignments and control streams (0 = keep)
--       then per note: key, field, value ('' = forget)
--       then per set of waiting tasks: key, what ('+' adds, '-' removes, '0' empties), number of ids, ids
-- Returns {'OK'}, or with nothing written {'FENCED', token found or ''}, {'BROKEN', latest call found or ''},
--         {'CONFLICT', id, guard found or ''}, or {'KNOWN', position (1..) of each task that was to be new and exists}

local call = redis.call

if call('GET', KEYS[1]) ~= ARGV[1] then
  return { 'FENCED', call('GET', KEYS[1]) or '' }
end

local latest = call('GET', KEYS[9]) or ''
local chain, made = string.match(latest, '^(.*)/(%d+)$')
local number = tonumber(ARGV[10])
made = chain == ARGV[9] and tonumber(made) or 0
if made >= number then
  return { 'OK' }
elseif made ~= number - 1 then
  return { 'BROKEN', latest }
end

local tasks, acks, messages = tonumber(ARGV[11]), tonumber(ARGV[12]), tonumber(ARGV[13])
local agents, notes, queues = tonumber(ARGV[14]), tonumber(ARGV[15]), tonumber(ARGV[16])
local LENGTHS = { w = 7, a = 9, f = 8, g = 15 }
local RELEASED_FROM = { f = 7, g = 9 }
local RECORDS = 9
local FIRST = 17

-- What is compared, and what of a record is needed below, is read at once.
local entries, specs, known = {}, {}, { 'KNOWN' }
local at = FIRST
for i = 1, tasks do
  local kind, before, record = ARGV[at], ARGV[at + 2], KEYS[RECORDS + i]
  local release, found = RELEASED_FROM[kind], nil
  if release and ARGV[at + release] ~= '0' then
    local pair = call('HMGET', record, 'state', 'entry')
    found, entries[i] = pair[1], pair[2]
  elseif kind == 'a' and before ~= '' then
    local pair = call('HMGET', record, 'state', 'spec')
    found, specs[i] = pair[1], pair[2]
  else
    found = call('HGET', record, 'state')
  end
  if (found or '') ~= before then
    if before ~= '' then
      return { 'CONFLICT', ARGV[at + 1], found or '' }
    end
    known[#known + 1] = i
  end
  at = at + LENGTHS[kind]
end

if #known > 1 then
  return known
end

local index = { w = KEYS[2], d = KEYS[3], a = KEYS[4] }
local given = {}

-- What the common kinds do to indexes and streams is done for all tasks together: ids, or scores and ids.
local waiting, taken, leased, over, finished, released = {}, {}, {}, {}, {}, {}

local function wait(at, record)
  call('HSET', record, 'state', ARGV[at + 3], 'run', ARGV[at + 5], 'spec', ARGV[at + 6])
  local n = #waiting
  waiting[n + 1], waiting[n + 2] = ARGV[at + 4], ARGV[at + 1]
end

local function assign(at, record, i)
  local id, spec, stream = ARGV[at + 1], ARGV[at + 6], KEYS[tonumber(ARGV[at + 7])]
  given[stream] = true
  if spec == '' then
    local entry = call('XADD', stream, '*', '__data__', ARGV[at + 8] .. (specs[i] or 'null') .. '}')
    call('HSET', record, 'state', ARGV[at + 3], 'run', ARGV[at + 5], 'entry', entry)
  else
    local entry = call('XADD', stream, '*', '__data__', ARGV[at + 8] .. spec .. '}')
    call('HSET', record, 'state', ARGV[at + 3], 'run', ARGV[at + 5], 'spec', spec, 'entry', entry)
  end
  if ARGV[at + 2] ~= '' then
    taken[#taken + 1] = id
  end
  local n = #leased
  leased[n + 1], leased[n + 2] = ARGV[at + 4], id
end

local function complete(at, record, i)
  local id = ARGV[at + 1]
  if entries[i] then
    local stream = KEYS[tonumber(ARGV[at + 7])]
    local ids = released[stream] or {}
    ids[#ids + 1] = entries[i]
    released[stream] = ids
  end
  call('HSET', record, 'state', ARGV[at + 3], 'run', ARGV[at + 5], 'result', ARGV[at + 6])
  call('PEXPIRE', record, ARGV[4])
  local n = #finished
  over[#over + 1] = id
  finished[n + 1], finished[n + 2] = ARGV[at + 4], id
end

local function change(at, key, i)
  local id = ARGV[at + 1]
  local place, score, spec, output = ARGV[at + 4], ARGV[at + 5], ARGV[at + 7], ARGV[at + 8]
  if entries[i] then
    call('XDEL', KEYS[tonumber(ARGV[at + 9])], entries[i])
  end
  local was = string.sub(ARGV[at + 2], 1, 1)
  if was == 'F' then
    call('ZREM', KEYS[5], id)
    call('ZREM', KEYS[6], id)
    call('PERSIST', key)
  end
  local handover = ARGV[at + 10]
  if place == 'g' then
    call('DEL', key)
  elseif handover ~= '0' then
    local body = spec
    if body == '' then
      body = call('HGET', key, 'spec') or 'null'
    end
    local stream = KEYS[tonumber(handover)]
    local entry = call('XADD', stream, '*', '__data__', ARGV[at + 11] .. body .. '}')
    given[stream] = true
    if spec ~= '' then
      call('HSET', key, 'state', ARGV[at + 3], 'run', ARGV[at + 6], 'spec', spec, 'entry', entry)
    else
      call('HSET', key, 'state', ARGV[at + 3], 'run', ARGV[at + 6], 'entry', entry)
    end
  elseif spec ~= '' then
    call('HSET', key, 'state', ARGV[at + 3], 'run', ARGV[at + 6], 'spec', spec)
  elseif output ~= '' then
    call('HSET', key, 'state', ARGV[at + 3], 'run', ARGV[at + 6], 'result', output)
  else
    call('HSET', key, 'state', ARGV[at + 3], 'run', ARGV[at + 6])
  end
  if ARGV[at + 12] ~= '0' then
    call('DEL', KEYS[tonumber(ARGV[at + 12])])
  end
  if ARGV[at + 13] ~= '0' then
    call('ZADD', KEYS[tonumber(ARGV[at + 13])], ARGV[3], id)
  end
  if ARGV[at + 14] ~= '0' then
    if was == 'F' and index[place] then
      call('PERSIST', KEYS[tonumber(ARGV[at + 14])])
    else
      call('PEXPIRE', KEYS[tonumber(ARGV[at + 14])], ARGV[4])
    end
  end
  if was == 'P' and place ~= 'w' then
    call('ZREM', KEYS[2], id)
  end
  if was == 'P' and place ~= 'd' then
    call('ZREM', KEYS[3], id)
  end
  if (was == 'A' or was == 'R') and place ~= 'a' then
    call('ZREM', KEYS[4], id)
  end
  if index[place] then
    if not (place == 'a' and was == 'A' and handover == '0') then
      call('ZADD', index[place], score, id)
    end
  elseif place ~= 'g' then
    call('ZADD', KEYS[5], score, id)
    if place == 'x' then
      call('ZADD', KEYS[6], score, id)
    end
    call('PEXPIRE', key, ARGV[4])
  end
end

local CHANGES = { w = wait, a = assign, f = complete, g = change }
at = FIRST
for i = 1, tasks do
  local kind = ARGV[at]
  CHANGES[kind](at, KEYS[RECORDS + i], i)
  at = at + LENGTHS[kind]
end

local function together(command, key, list)
  return #list > 0 and call(command, key, unpack(list)) or 0
end
together('ZADD', KEYS[2], waiting)
if together('ZREM', KEYS[2], taken) < #taken then
  together('ZREM', KEYS[3], taken) -- some were delayed
end
together('ZREM', KEYS[4], over)
together('ZADD', KEYS[4], leased)
together('ZADD', KEYS[5], finished)
for stream, ids in pairs(released) do
  together('XDEL', stream, ids)
end
for stream in pairs(given) do
  call('PEXPIRE', stream, ARGV[8])
end

for _ = 1, acks do
  local key, n = KEYS[tonumber(ARGV[at])], tonumber(ARGV[at + 1])
  local ids = {}
  for i = 1, n do
    ids[i] = ARGV[at + 1 + i]
  end
  call('XACK', key, ARGV[2], unpack(ids))
  call('XDEL', key, unpack(ids))
  at = at + 2 + n
end
for _ = 1, messages do
  local key, ttl, cap = KEYS[tonumber(ARGV[at])], ARGV[at + 1], ARGV[at + 2]
  if cap == '0' then
    call('XADD', key, '*', '__data__', ARGV[at + 3])
  else
    call('XADD', key, 'MAXLEN', '~', cap, '*', '__data__', ARGV[at + 3])
  end
  if ttl ~= '0' and call('PTTL', key) < tonumber(ttl) then
    call('PEXPIRE', key, ttl)
  end
  at = at + 4
end
for _ = 1, agents do
  local key, id, record = KEYS[tonumber(ARGV[at])], ARGV[at + 1], ARGV[at + 2]
  if record == '' then
    call('DEL', key, KEYS[tonumber(ARGV[at + 4])], KEYS[tonumber(ARGV[at + 5])])
    call('ZREM', KEYS[8], id)
  else
    call('HSET', key, 'record', record)
    call('ZADD', KEYS[8], ARGV[at + 3], id)
  end
  at = at + 6
end
for _ = 1, notes do
  local key, field, value = KEYS[tonumber(ARGV[at])], ARGV[at + 1], ARGV[at + 2]
  if value == '' then
    call('HDEL', key, field)
  else
    call('HSET', key, field, value)
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
    call('UNLINK', key)
  else
    call(what == '+' and 'SADD' or 'SREM', key, unpack(ids))
  end
  at = at + 3 + n
end
if ARGV[5] ~= '' then
  local entry = call('XADD', KEYS[7], 'MAXLEN', '~', ARGV[6], '*', '__data__', ARGV[5])
  local oldest = tonumber(string.match(entry, '^%d+')) - tonumber(ARGV[7])
  call('XTRIM', KEYS[7], 'MINID', '~', string.format('%.0f', math.max(0, oldest)))
end
call('SET', KEYS[9], ARGV[9] .. '/' .. ARGV[10])
return { 'OK' }
