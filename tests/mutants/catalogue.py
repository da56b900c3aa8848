"""Ways to break Callboard, one small change each, with the test that must notice.

`old` stands exactly once in its file; what takes its place is wrong in just the way that a guarantee forbids. Every
test here stands on a line of docs/guarantees.md that is marked, and every such line has a mutant.
"""

from typing import Final, NamedTuple


class Mutant(NamedTuple):
    """One change, and who notices it."""

    name: str
    """What the broken program does."""
    file: str
    old: str
    new: str
    test: str


COMMIT: Final = "dispatcher/scripts/commit.lua"
OF_COMMIT: Final = "tests/dispatcher/ledger/test_commit.py"
AGENTS: Final = "dispatcher/core/agents.py"
OF_UPGRADE: Final = (
    "tests/integration/test_rolling_upgrade.py::"
    "test_what_is_of_a_newer_version_is_parked_and_read_by_the_first_leader_that_reads_it"
)
OF_PREDECESSORS: Final = "tests/dispatcher/core/test_predecessors.py"
OF_CHILDREN: Final = "tests/dispatcher/core/test_children.py"
READ_AGAIN: Final = (
    f"{OF_CHILDREN}::test_a_parent_that_has_ended_and_whose_submission_is_read_again_does_not_end_its_children"
)

MUTANTS: Final = (
    # --- the ledger
    Mutant(
        "a commit does not look at the lease",
        COMMIT,
        "if call('GET', KEYS[1]) ~= ARGV[1] then",
        "if false then",
        f"{OF_COMMIT}::test_a_former_leader_is_refused_for_good",
    ),
    Mutant(
        "a commit that is repeated is done again",
        COMMIT,
        "if made >= number then",
        "if false then",
        f"{OF_COMMIT}::test_a_commit_whose_reply_was_lost_may_be_sent_again_and_changes_nothing",
    ),
    Mutant(
        "a call is made though the one before it was not",
        COMMIT,
        "elseif made ~= number - 1 then",
        "elseif false then",
        f"{OF_COMMIT}::test_a_call_whose_predecessor_was_not_made_is_refused",
    ),
    Mutant(
        "a commit does not compare the task with what the leader remembers",
        COMMIT,
        "    if before ~= '' then\n",
        "    if false then\n",
        f"{OF_COMMIT}::test_a_task_that_is_not_as_remembered_stops_the_whole_commit",
    ),
    Mutant(
        "a submission that is read again replaces its task",
        COMMIT,
        "  if (found or '') ~= before then",
        "  if before ~= '' and (found or '') ~= before then",
        f"{OF_COMMIT}::test_of_a_task_that_is_to_be_new_and_exists_nothing_is_written_or_said_and_the_rest_is_stored",
    ),
    Mutant(
        "the input is not consumed with its effect",
        COMMIT,
        "  call('XACK', key, ARGV[2], unpack(ids))\n  call('XDEL', key, unpack(ids))\n",
        "",
        "tests/dispatcher/ledger/test_commit_cut.py::"
        "test_a_hundred_and_one_tasks_take_two_calls_and_the_input_is_consumed_by_the_last",
    ),
    Mutant(
        "finished tasks do not expire",
        COMMIT,
        "  call('PEXPIRE', record, ARGV[4])\n",
        "",
        f"{OF_COMMIT}::test_only_finished_tasks_expire_after_their_retention",
    ),
    Mutant(
        "each part of a pass has its instructions, agents and input",
        "dispatcher/ledger.py",
        "decisions if n == last else None, inputs if n == last else None",
        "decisions, inputs",
        "tests/dispatcher/ledger/test_commit_cut.py::"
        "test_each_call_of_a_pass_says_what_it_stores_and_the_last_stores_the_agents",
    ),
    # --- submitting
    Mutant(
        "a key that was used is not known",
        "bus/scripts/submit.lua",
        "if record > 0 and redis.call('EXISTS', KEYS[record], KEYS[record + 1]) > 0 then",
        "if false then",
        "tests/bus/test_submission.py::test_a_keyed_task_is_stored_once_while_it_waits_and_once_it_has_a_record",
    ),
    Mutant(
        "a submission that is repeated takes a second place of a bound",
        "bus/scripts/submit.lua",
        "  if decided then",
        "  if false then",
        "tests/dispatcher/ledger/test_bounds.py::test_a_call_that_is_repeated_stores_nothing_more_and_is_told_the_same",
    ),
    Mutant(
        "tasks that are made alike share what can be changed",
        "bus/alike.py",
        '    values["resources"], values["metadata"] = {}, {}  # the others cannot be changed\n',
        "",
        "tests/bus/test_alike.py::test_tasks_that_are_made_alike_share_nothing_that_can_be_changed",
    ),
    Mutant(
        "who gives up waiting gives up for all",
        "bus/waiter.py",
        "        future = self._future()\n        try:",
        "        future = self.outcome\n        try:",
        "tests/bus/test_waiting.py::test_a_caller_that_is_cancelled_gives_up_only_its_own_waiting",
    ),
    Mutant(
        "a submission is tried once",
        "bus/submission.py",
        "            if monotonic() > until:",
        "            if True:",
        "tests/bus/test_outage.py::test_a_submission_waits_until_a_failover_is_over",
    ),
    Mutant(
        "a reply that was lost is not looked for",
        "bus/waiting.py",
        "        if not due:\n",
        "        if True:\n",
        "tests/bus/test_client.py::test_replies_that_were_lost_are_found_in_the_ledger",
    ),
    Mutant(
        "a task that is not read yet is unknown",
        "bus/waiting.py",
        "unread == [0] * len(unread) and ",
        "",
        "tests/bus/test_waiting.py::test_a_task_that_never_was_is_unknown_though_not_while_submissions_are_unread",
    ),
    Mutant(
        "connections that the server has closed are used",
        "bus/connection.py",
        "        timeout=None,\n        maint_notifications_config=_NO_NOTICES,\n",
        "        timeout=None,\n",
        "tests/bus/test_socket_connection.py::test_a_connection_that_the_server_has_closed_is_not_used_again",
    ),
    # --- leading
    Mutant(
        "a lease is given to whoever asks",
        "dispatcher/scripts/lead.lua",
        "if held then",
        "if false then",
        "tests/dispatcher/ledger/test_leadership.py::test_of_many_candidates_one_leads",
    ),
    Mutant(
        "an emptied server begins with the first epoch again",
        "dispatcher/scripts/lead.lua",
        "+ 1, now)",
        "+ 1, 1)",
        "tests/dispatcher/ledger/test_leadership.py::test_the_epoch_grows_though_the_server_has_lost_everything",
    ),
    Mutant(
        "a leader trusts its lease for ever",
        "dispatcher/leadership.py",
        "self.lead is not None and monotonic_ms() < self._trusted_until",
        "self.lead is not None",
        "tests/dispatcher/ledger/test_leadership.py::test_a_lease_that_is_not_renewed_ends_and_is_not_trusted_any_longer",
    ),
    Mutant(
        "who has lost the lead waits longer each time",
        "dispatcher/pool.py",
        "if not isinstance(lost, MemoryInDoubtError):",
        "if False:",
        "tests/dispatcher/test_defects.py::test_a_lead_that_is_lost_again_and_again_is_won_again_at_once",
    ),
    Mutant(
        "an entry on which the leader fails is not put aside",
        "dispatcher/pool.py",
        "            if error.certain:",
        "            if False:",
        "tests/dispatcher/test_defects.py::"
        "test_an_entry_on_which_the_leader_fails_again_and_again_is_rejected_and_the_others_are_taken",
    ),
    # --- reading
    Mutant(
        "what another has read and not consumed stays unread",
        "dispatcher/intake.py",
        "            await self._claim(ear, 0)",
        "            pass",
        "tests/dispatcher/test_intake.py::test_pending_entries_of_whatever_consumer_are_delivered_again_at_the_start",
    ),
    Mutant(
        "what another reads while this one leads stays unread",
        "dispatcher/intake.py",
        'if summary["pending"] > len(ear.in_hand):',
        "if False:",
        "tests/dispatcher/test_intake.py::test_entries_that_another_fetched_meanwhile_are_claimed_once_they_are_stranded",
    ),
    Mutant(
        "a lost group is not made again",
        "dispatcher/intake.py",
        "                if not ear.subscriber.running:",
        "                if False:",
        "tests/dispatcher/test_intake.py::test_a_lost_group_is_made_again_and_what_was_written_since_is_read",
    ),
    Mutant(
        "input is acknowledged when it is read",
        "dispatcher/intake.py",
        "                group=group,\n",
        "                group=group,\n                no_ack=True,\n",
        "tests/dispatcher/test_intake.py::test_nothing_is_acknowledged_until_the_ledger_does_it",
    ),
    # --- agents, as the leader sees them
    Mutant(
        "a report of an earlier attempt is taken",
        "dispatcher/core/reports.py",
        "        or task.attempt != item.attempt\n",
        "",
        "tests/dispatcher/core/test_life.py::test_reports_that_are_not_of_the_present_attempt_are_stale",
    ),
    Mutant(
        "a report of an earlier session is taken",
        "dispatcher/core/reports.py",
        "        or current.session != report.session\n",
        "",
        "tests/dispatcher/core/test_life.py::test_reports_that_are_not_of_the_present_attempt_are_stale",
    ),
    Mutant(
        "a silent agent keeps its tasks",
        AGENTS,
        "    release_all(board, agent, at)\n    board.clock_timers.set(at + board.config",
        "    board.clock_timers.set(at + board.config",
        "tests/dispatcher/core/test_agents.py::test_silence_loses_an_agent_and_its_tasks_go_to_another",
    ),
    Mutant(
        "an agent that was stored as lost keeps its tasks under the next leader",
        AGENTS,
        "    if agent.health is AgentHealth.LOST:\n        release_all(board, agent, at)\n",
        "    if agent.health is AgentHealth.LOST:\n",
        "tests/dispatcher/core/test_take_over.py::"
        "test_the_tasks_of_an_agent_that_was_stored_as_lost_are_freed_by_the_successor",
    ),
    Mutant(
        "the older of two processes with one id may come back",
        AGENTS,
        "if agent is not None and message.session in agent.retired:",
        "if False:",
        "tests/dispatcher/core/test_agents.py::test_a_session_that_was_replaced_may_not_come_back",
    ),
    Mutant(
        "leases run while the leader sees nothing",
        "dispatcher/core/scheduler.py",
        "agent.last_beat += event.duration_ms",
        "pass",
        "tests/dispatcher/core/test_agents.py::test_nobodys_lease_runs_while_the_leader_is_blind",
    ),
    Mutant(
        "leases end by the clock, whatever lies unread",
        "dispatcher/core/scheduler.py",
        "        ringing.ring(self.board)\n",
        "        board.horizon = board.now\n        ringing.ring(self.board)\n",
        "tests/dispatcher/core/test_life.py::test_the_run_timeout_is_over_only_when_all_reports_are_read",
    ),
    Mutant(
        "the horizon is the present",
        "dispatcher/engine.py",
        "        horizon = now - 1\n",
        "        horizon = now\n",
        "tests/dispatcher/test_engine.py::test_the_horizon_of_empty_streams_is_before_the_present_millisecond",
    ),
    Mutant(
        "what an agent does not hold is believed to run",
        AGENTS,
        "        elif board.horizon >= current.missing_since and awake >= current.missing_since:",
        "        elif False:",
        "tests/dispatcher/core/test_agents.py::test_what_runs_and_is_not_held_any_more_is_lost",
    ),
    Mutant(
        "a task that kills its agents is given to the next",
        "dispatcher/core/retry.py",
        "POISON_LOSSES: Final = 3",
        "POISON_LOSSES: Final = 30",
        "tests/dispatcher/core/test_policies.py::test_a_task_that_kills_three_agents_is_poison_and_says_whom_it_killed",
    ),
    # --- agents, as they are
    Mutant(
        "an attempt that is read again is run again",
        "agent_runtime/inbox.py",
        "        if key in self._held or (key, attempt.assigned_at) in self._past:",
        "        if False:",
        "tests/agent_runtime/test_inbox.py::test_an_attempt_is_taken_once_however_often_it_is_read",
    ),
    Mutant(
        "a report that could not be written is forgotten",
        "agent_runtime/reporter.py",
        '            self._link.failed("reporter", error)\n',
        '            self._link.failed("reporter", error)\n            self._outgoing.popleft()\n',
        "tests/agent_runtime/test_reporter.py::test_a_report_that_could_not_be_written_is_sent_again_and_only_then_stored",
    ),
    Mutant(
        "an assignment of an earlier life is run",
        "agent_runtime/reader.py",
        '            if message["session"] != self._session:',
        "            if False:",
        "tests/agent_runtime/test_worker.py::test_entries_of_other_sessions_are_not_run",
    ),
    Mutant(
        "exclusive work goes on without a lease",
        "agent_runtime/worker.py",
        "                self._slots.cancel_exclusive()",
        "                pass",
        "tests/agent_runtime/test_outage.py::"
        "test_exclusive_work_is_cancelled_before_the_lease_ends_and_other_work_is_not",
    ),
    Mutant(
        "a task that may be tried only once is begun before that is known",
        "agent_runtime/slots.py",
        "if attempt.key[1] == 1 and not once and not execution.exclusive:",
        "if True:",
        "tests/agent_runtime/test_process.py::"
        "test_a_task_that_kills_its_agent_again_or_may_be_tried_once_only_is_known_to_have_begun",
    ),
    Mutant(
        "what was given to another meanwhile is begun",
        "agent_runtime/reporter.py",
        "            ours = self._has(key, state)",
        "            ours = True",
        "tests/agent_runtime/test_beginning.py::"
        "test_a_task_that_may_be_tried_once_is_not_begun_when_it_was_given_to_another_meanwhile",
    ),
    Mutant(
        "what may be tried once begins when that is stored, whatever the leader has decided before",
        "agent_runtime/reporter.py",
        "if read and ours and is_unread(state):",
        "if False:",
        "tests/agent_runtime/test_beginning.py::"
        "test_a_task_that_may_be_tried_once_is_begun_only_when_the_leader_has_read_that_it_begins",
    ),
    Mutant(
        "what a blocked event loop has not read is taken away as if it had been lost",
        "dispatcher/core/agents.py",
        "awake = at - int(message.lag * 1000)",
        "awake = at",
        "tests/dispatcher/core/test_agents.py::"
        "test_what_an_agent_could_not_read_because_its_loop_is_blocked_is_not_taken_from_it",
    ),
    Mutant(
        "the lease of an agent whose registration is read late runs from when that was written",
        AGENTS,
        "before this leader began.\n        last_beat=board.now,",
        "before this leader began.\n        last_beat=at,",
        "tests/dispatcher/core/test_take_over.py::"
        "test_a_registration_that_is_read_long_after_it_was_written_gives_a_whole_lease",
    ),
    Mutant(
        "who was silent and comes back was killed by what it ran",
        AGENTS,
        "replace(a, error=CAME_BACK) if a.attempt == number else a",
        "a",
        "tests/dispatcher/core/test_policies.py::test_a_task_whose_agents_were_silent_and_came_back_is_no_poison",
    ),
    Mutant(
        "a process whose event loop had no memory goes on",
        "agent_runtime/process.py",
        "out_of_memory.end_on(loop)",
        "pass",
        "tests/agent_runtime/test_process.py::test_an_agent_whose_event_loop_had_no_memory_ends_as_by_a_crash",
    ),
    Mutant(
        "a blocked event loop is taken for a silent server",
        "bus/socket_connection.py",
        "loop.time() > overdue_at + _LATE_S",
        "False",
        "tests/bus/test_socket_connection.py::test_a_reply_that_lay_unread_because_the_loop_was_blocked_is_not_overdue",
    ),
    Mutant(
        "a requeue is told from another by the clock of the leader that reads it",
        "dispatcher/core/scheduler.py",
        "Duplicate | Blind | Found | Strays | OfDeadLetters) and",
        "Duplicate | Blind | Found | Strays) and",
        "tests/dispatcher/core/test_dead_letters.py::"
        "test_it_is_known_again_though_the_clock_of_the_first_leader_was_behind",
    ),
    Mutant(
        "who cannot be heard because the server takes no writes is taken for dead",
        "dispatcher/engine.py",
        'pipe.setrange(names.leader, 0, "")',
        "pipe.get(names.leader)",
        "tests/dispatcher/test_engine.py::test_there_is_no_horizon_while_agents_cannot_write",
    ),
    Mutant(
        "a heartbeat that fails is the last",
        "agent_runtime/heartbeat.py",
        "                except Exception:\n                    # A task may",
        "                except ZeroDivisionError:\n                    # A task may",
        "tests/agent_runtime/test_heartbeat.py::test_a_beat_that_fails_for_want_of_memory_is_not_the_last",
    ),
    Mutant(
        "the older of two processes with one id goes on",
        "agent_runtime/worker.py",
        "                self._end(ExitCode.SUPERSEDED, hurry=True)",
        "                pass",
        "tests/agent_runtime/test_leaving.py::test_a_superseded_agent_stops_without_a_word",
    ),
    # --- children
    Mutant(
        "a child of a parent that is read again is taken for a zombie's",
        "dispatcher/core/children.py",
        "parent.attempt < (header.parent_attempt or 1)",
        "False",
        READ_AGAIN,
    ),
    Mutant(
        "how a parent ended that is read again is not asked",
        "dispatcher/core/children.py",
        "    if task.id in board.family:\n",
        "    if False:\n",
        READ_AGAIN,
    ),
    # --- exclusive work
    Mutant(
        "exclusive work of a replaced process is given away at once",
        "dispatcher/core/predecessors.py",
        "and predecessor.until > at",
        "and False",
        f"{OF_PREDECESSORS}::test_exclusive_work_stays_with_a_replaced_session_until_its_lease_is_over",
    ),
    Mutant(
        "a replaced process that goes on beating is not waited for",
        "dispatcher/core/predecessors.py",
        "predecessor.last_beat = max(predecessor.last_beat, at)",
        "pass",
        f"{OF_PREDECESSORS}::test_each_heartbeat_of_the_replaced_session_prolongs_its_lease",
    ),
    Mutant(
        "the next leader does not wait for a replaced process",
        "dispatcher/core/record.py",
        "predecessors.stored(agent) if agent.predecessors else ()",
        "()",
        f"{OF_PREDECESSORS}::test_the_next_leader_waits_for_it_a_whole_lease",
    ),
    Mutant(
        "exclusive work is begun whoever has it now",
        "agent_runtime/slots.py",
        "not once and not execution.exclusive:",
        "not once:",
        "tests/agent_runtime/test_beginning.py::test_exclusive_work_is_not_begun_when_it_was_given_to_another_meanwhile",
    ),
    # --- killed between two steps
    Mutant(
        "input is consumed with the first call of a pass",
        "dispatcher/ledger.py",
        "inputs if n == last else None",
        "inputs if n == 0 else None",
        "tests/integration/test_killed_at_every_step.py::"
        "test_a_leader_killed_between_any_two_steps_loses_and_doubles_nothing",
    ),
    # --- versions side by side
    Mutant(
        "what a newer version wrote is read as if it were known",
        "dispatcher/decoding.py",
        "            if _version_of(message) > READS:",
        "            if False:",
        OF_UPGRADE,
    ),
    Mutant(
        "what does not fit and is newer is rejected",
        "dispatcher/decoding.py",
        "            if _version(body) > READS:",
        "            if False:",
        "tests/dispatcher/test_decoding.py::test_a_newer_version_is_parked_whether_or_not_it_still_fits_the_model",
    ),
    Mutant(
        "newer heartbeats are kept",
        "dispatcher/decoding.py",
        "batch.skipped if topic.fleeting else batch.parked",
        "batch.parked",
        "tests/dispatcher/test_decoding.py::test_of_what_only_the_latest_counts_a_newer_version_is_not_kept",
    ),
    Mutant(
        "an agent leaves out what is of a version that it reads",
        "agent_runtime/reader.py",
        'message.get("v", 1)) > READS',
        'message.get("v", 1)) >= READS > 1',
        "tests/integration/test_rolling_upgrade.py::test_two_releases_that_follow_each_other_work_side_by_side",
    ),
    Mutant(
        "an agent that understands nothing stays",
        "agent_runtime/reader.py",
        "            self._outdated(version)",
        "            pass",
        "tests/integration/test_rolling_upgrade.py::"
        "test_an_agent_that_is_too_old_for_its_dispatcher_says_so_and_leaves_its_tasks_to_others",
    ),
    Mutant(
        "a client takes an answer that it cannot read for an empty one",
        "bus/link.py",
        "    if version > READS:",
        "    if False:",
        "tests/integration/test_rolling_upgrade.py::"
        "test_when_the_next_leader_writes_what_agents_and_clients_do_not_read_nothing_of_theirs_is_lost",
    ),
    Mutant(
        "what a newer version wrote holds up the horizon",
        "dispatcher/parked.py",
        "            if entry_id not in parked:",
        "            if True:",
        OF_UPGRADE,
    ),
    Mutant(
        "what is parked is looked at again and again",
        "dispatcher/parked.py",
        "            self._passed[stream] = entry_id",
        "            pass",
        "tests/dispatcher/test_parked.py::test_however_many_are_parked_a_page_is_looked_at",
    ),
    Mutant(
        "who has slept gives back the lead of another",
        "dispatcher/scripts/renew.lua",
        "if redis.call('GET', KEYS[1]) ~= ARGV[1] then",
        "if false then",
        "tests/integration/test_killed_at_every_step.py::"
        "test_a_leader_that_slept_at_any_step_and_wakes_when_another_leads_does_no_harm",
    ),
    Mutant(
        "who loses the lead while it loads goes on reading",
        "dispatcher/loading.py",
        "            await asyncio.gather(fetching, return_exceptions=True)",
        "            try:\n                await asyncio.wait([fetching])\n"
        "            except asyncio.CancelledError:\n                pass",
        "tests/dispatcher/ledger/test_loading.py::test_whoever_is_cancelled_when_all_is_read_learns_of_it",
    ),
)
