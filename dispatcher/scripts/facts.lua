-- Purpose: read all that is stored of some tasks, for an audit.
--
-- Guarantee: as of one instant. One reply instead of eight per task, which cost the reader a hundred microseconds. Writes
-- nothing.
--
-- KEYS  1 pending  2 delayed  3 leases  4 finished  5 dead  6.. records of tasks
-- ARGV  the tasks' ids
-- Returns for each {state, spec, run, time to live (ms, as PTTL says it), score in each of the five lists}, false where
--         there is none; false instead of all that for a key of another type

local found = {}
for i = 1, #ARGV do
  local key, id = KEYS[5 + i], ARGV[i]
  local fields = redis.pcall('HMGET', key, 'state', 'spec', 'run')
  if fields.err then
    found[i] = false
  else
    local row = { fields[1], fields[2], fields[3], redis.call('PTTL', key) }
    for n = 1, 5 do
      row[4 + n] = redis.call('ZSCORE', KEYS[n], id)
    end
    found[i] = row
  end
end
return found
