"""Schedules: when they fire, what overlaps and misses come to; a change of leader neither loses nor doubles."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from pydantic import ValidationError
from pydantic_core import from_json

from bus.ids import DEFAULT_POOL, TaskId, scheduled_task_id
from bus.messages import (
    Command,
    Reply,
    ScheduleInfo,
    ScheduleProgress,
    SubmitTask,
    TaskHeader,
    TaskResult,
)
from bus.messages import Report as ReportMessage
from bus.records import Guard, Run
from bus.states import TaskStatus
from dispatcher.core.decisions import Decisions, Note, NoteKind, TaskChange
from dispatcher.core.events import Commanded, Duplicate, Event, Reported
from dispatcher.core.record import StoredTask, agent_record, restore_agent
from dispatcher.core.scheduler import Scheduler
from dispatcher.ledger import in_parts
from tests.dispatcher.core.world import START, World

MINUTE = 60_000
HOUR = 60 * MINUTE
assert START % MINUTE == 0


class Pool(World):
    """A world whose ledger keeps notes, too, and can be taken over from between any two of a pass's calls."""

    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        self.notes: dict[tuple[NoteKind, str], bytes] = {}
        self.specs: dict[str, bytes] = {}
        self.runs: dict[str, bytes] = {}
        self.outcomes: dict[str, int] = {}

    def step(self, *events: Event, after: int = 0) -> Decisions:
        """Take a pass and store all of it."""
        self.now += after
        decisions = self.scheduler.step(events, self.now)
        self.store(decisions)
        for firing in decisions.firings:
            self.outcomes[firing.outcome] = self.outcomes.get(firing.outcome, 0) + firing.count
        return decisions

    def store(self, decisions: Decisions, calls: int | None = None) -> None:
        """Store a pass, or only its first `calls`, as a leader does that dies then."""
        parts = in_parts(decisions)
        known: list[str] = []
        for part in parts[:calls]:
            known += self._changes(part.changes)
        if calls is None or calls >= len(parts):
            for note in decisions.notes:
                if note.value is None:
                    self.notes.pop((note.kind, note.field), None)
                else:
                    self.notes[note.kind, note.field] = note.value
        if known:
            self.step(*(Duplicate(task_id) for task_id in known))

    def _changes(self, changes: Sequence[TaskChange]) -> list[str]:
        known = []
        for change in changes:
            if not change.before and change.task_id in self.stored:
                known.append(change.task_id)
                continue
            assert self.stored.get(change.task_id, "") == change.before, change
            self.stored[change.task_id], self.runs[change.task_id] = change.after, change.run
            if change.spec is not None:
                self.specs[change.task_id] = change.spec
        return known

    def take_over(self, *, agents: bool = True) -> None:
        """Let another leader go on with what is stored, and nothing else."""
        old, self.scheduler = self.scheduler, Scheduler(self.config, seed=2)
        known = old.board.fleet.agents.values() if agents else ()
        fleet = [restore_agent(agent_record(agent), self.now) for agent in known]
        tasks = [
            StoredTask(
                task_id,
                guard,
                TaskHeader.model_validate_json(self.specs[task_id]),
                Run.model_validate_json(self.runs[task_id]),
            )
            for task_id, text in self.stored.items()
            if not (guard := Guard.parse(text)).status.terminal
        ]
        notes = [Note(kind, name, value) for (kind, name), value in self.notes.items()]
        self.scheduler.load(fleet, (), self.now, notes)
        self.scheduler.load((), tasks, self.now)

    def drain(self) -> None:
        """Step until nothing is due."""
        while (due := self.scheduler.next_due) is not None and due <= self.now:
            self.step()

    def wait(self, ms: int) -> None:
        """Let time pass as a leader does that wakes when something is due."""
        until = self.now + ms
        while (due := self.scheduler.next_due) is not None and due <= until:
            self.now = max(self.now, due)
            self.step()
        self.now = until

    def stop(self, number: int) -> None:
        """Let the agent stop a task that is cancelled, by its place in the order of submission."""
        task = self.scheduler.board.tasks[list(self.stored)[number]]
        assert task.cancellation is not None
        result = TaskResult(task_id=TaskId(task.id), attempt=task.attempt, status=TaskStatus.CANCELLED)
        report = ReportMessage(agent_id="a", session=self.agent().session, results=(result,))
        self.step(Reported(report, self.now))

    # --- schedules

    def put(self, schedule_id: str = "s", *, if_absent: bool = False, **fields: Any) -> Reply:
        """Make a schedule; by default each minute."""
        if "cron" not in fields and "every" not in fields:
            fields["every"] = 60
        spec = {"id": schedule_id, "task": {"capability": "do", "payload": {"n": 1}}, **fields}
        return self.ask("put_schedule", schedule=spec, if_absent=if_absent)

    def ask(self, kind: str, **fields: Any) -> Reply:
        """Give a command and return how it was answered."""
        command = Command.model_validate({"type": kind, "reply_to": "me", **fields})
        decisions = self.step(Commanded(command.root, self.now))
        (reply,) = decisions.replies
        assert reply.client_id == "me"
        return Reply.model_validate_json(reply.body)

    def progress(self, schedule_id: str = "s") -> ScheduleProgress:
        """Return how far a schedule is, as the ledger has it."""
        return ScheduleProgress.model_validate_json(self.notes[NoteKind.SCHEDULE_PROGRESS, schedule_id])

    def fired(self, schedule_id: str = "s") -> list[int]:
        """Return the instants, counted from the start of the test, of which there are tasks."""
        found = []
        for task_id, spec in self.specs.items():
            run = SubmitTask.model_validate_json(spec).schedule
            if run is not None and run.id == schedule_id:
                assert task_id == scheduled_task_id(DEFAULT_POOL, schedule_id, run.due)
                found.append(run.due - START)
        return found

    def finish(self) -> Decisions:
        """Let all tasks end that an agent has."""
        done = [
            TaskResult(task_id=task.id, attempt=task.attempt, status=TaskStatus.COMPLETED)
            for task in self.agent().tasks.values()
        ]
        report = ReportMessage(agent_id="a", session=self.agent().session, results=tuple(done))
        return self.step(Reported(report, self.now))

    @property
    def statuses(self) -> list[str]:
        """Return what has become of all tasks, in their order."""
        return [Guard.parse(text).status.value for text in self.stored.values()]


# --- when


def test_an_interval_fires_from_its_making_on_and_does_not_drift() -> None:
    pool = Pool()
    pool.put(overlap="queue")
    pool.wait(MINUTE - 1)
    assert pool.fired() == []
    pool.now += 30_000  # the leader is late once
    pool.step()
    pool.wait(2 * MINUTE)
    assert pool.fired() == [MINUTE, 2 * MINUTE, 3 * MINUTE]


def test_a_cron_text_fires_in_its_time_zone() -> None:
    pool = Pool()
    pool.put(cron="0 3 * * *", timezone="Asia/Tokyo", overlap="queue")
    pool.wait(48 * HOUR)
    assert [(START + at) // HOUR % 24 for at in pool.fired()] == [18, 18]


@pytest.mark.parametrize("timing", [{"every": 600}, {"cron": "*/10 * * * *"}])
def test_nothing_fires_before_its_start_and_after_its_until(timing: dict[str, Any]) -> None:
    pool = Pool()
    start, until = START + HOUR, START + HOUR + 20 * MINUTE
    pool.put(**timing, start=start, until=until, overlap="queue")
    pool.wait(5 * HOUR)
    assert [at - HOUR for at in pool.fired()] == [0, 10 * MINUTE, 20 * MINUTE]
    assert pool.progress().next_due is None


def test_a_schedule_ends_when_it_has_fired_so_often() -> None:
    pool = Pool()
    answer = pool.put(max_runs=2, overlap="queue")
    assert answer.schedule is not None
    assert len(answer.schedule.upcoming(9)) == 2
    pool.wait(HOUR)
    assert pool.fired() == [MINUTE, 2 * MINUTE]
    info = ScheduleInfo(spec=answer.schedule.spec, progress=pool.progress())
    assert (info.state, info.upcoming(3)) == ("ended", [])


def test_a_task_says_which_firing_it_is_and_has_its_payload_as_it_was_given() -> None:
    pool = Pool()
    pool.step(pool.sign_in())
    pool.put(task={"capability": "do", "payload": {"n": 1.0, "k": "ä"}, "tags": ["t"], "run_timeout": 5})
    pool.wait(MINUTE)
    ((task_id, spec),) = pool.specs.items()
    submitted = SubmitTask.model_validate_json(spec)
    assert task_id == submitted.id == scheduled_task_id(DEFAULT_POOL, "s", START + MINUTE)
    assert submitted.schedule is not None
    assert (submitted.schedule.id, submitted.schedule.due) == ("s", START + MINUTE)
    assert (submitted.payload, submitted.tags, submitted.run_timeout) == ({"n": 1.0, "k": "ä"}, ("t",), 5)
    assert pool.statuses == ["ASSIGNED"]


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"cron": "0 3 * * *", "every": 5}, "one of `cron` and `every`"),
        ({"cron": None, "every": None}, "one of `cron` and `every`"),
        ({"every": 0.5}, "greater than or equal to 1"),
        ({"every": 5, "timezone": "Europe/Berlin"}, "leave `timezone` out"),
        ({"cron": "0 3 * *"}, "five fields"),
        ({"every": 5, "start": 9, "until": 8}, "`until` is before `start`"),
        ({"every": 5, "task": {"capability": "do", "key": "k"}}, "leave the key out"),
        ({"every": 5, "id": "no way"}, "pattern"),
    ],
)
def test_what_cannot_be_is_refused_where_it_is_made(fields: dict[str, Any], complaint: str) -> None:
    spec = {"id": "s", "task": {"capability": "do"}, **fields}
    with pytest.raises(ValidationError, match=complaint):
        Command.model_validate({"type": "put_schedule", "schedule": spec})


# --- overlaps


def test_by_default_a_firing_is_skipped_while_the_task_before_it_has_not_ended() -> None:
    pool = Pool()
    pool.step(pool.sign_in(lease=36_000))
    pool.put()
    pool.wait(3 * MINUTE)
    assert pool.fired() == [MINUTE]
    assert pool.outcomes == {"fired": 1, "skipped": 2}
    pool.finish()
    pool.wait(MINUTE)
    assert pool.fired() == [MINUTE, 4 * MINUTE]
    assert (pool.progress().fired, pool.progress().skipped) == (2, 2)


def test_tasks_may_queue_up_and_so_many_of_them_at_most() -> None:
    pool = Pool()
    pool.put(every=1, overlap="queue")
    pool.wait(1_005_000)
    assert len(pool.fired()) == 1_000
    assert pool.outcomes == {"fired": 1_000, "skipped": 5}


def test_a_task_may_replace_the_one_before_it() -> None:
    pool = Pool()
    pool.step(pool.sign_in(lease=36_000))
    pool.put(overlap="replace")
    for minute in range(3):
        pool.wait(MINUTE)
        if minute:
            pool.stop(minute - 1)
    assert pool.statuses == ["CANCELLED", "CANCELLED", "ASSIGNED"]
    assert pool.outcomes == {"fired": 3, "replaced": 2}
    pool.finish()
    pool.wait(MINUTE)
    assert pool.outcomes["replaced"] == 2, "one that has ended is left alone"


def test_who_is_still_running_is_known_after_a_change_of_the_leader_though_its_schedule_was_put_anew() -> None:
    pool = Pool()
    pool.put()
    pool.wait(MINUTE)
    pool.take_over()
    pool.ask("delete_schedule", id="s")
    pool.put()
    pool.wait(5 * MINUTE)
    assert pool.fired() == [MINUTE]


# --- misses


@pytest.mark.parametrize(
    ("missed", "fired"),
    [("skip", []), ("latest", [9 * MINUTE]), ("all", [n * MINUTE for n in range(1, 10)])],
)
@pytest.mark.parametrize("how", ["nobody led", "it was paused"])
def test_what_was_missed_is_let_go_or_made_up_for(missed: str, fired: list[int], how: str) -> None:
    pool = Pool(schedule_grace_ms=30_000)
    pool.put(missed=missed, overlap="queue")
    if how == "it was paused":
        pool.ask("pause_schedule", id="s", reason="night")
        pool.wait(9 * MINUTE + 10)
        pool.ask("resume_schedule", id="s")
    else:
        pool.now += 9 * MINUTE + 45_000
        pool.take_over()
    pool.drain()
    assert pool.fired() == fired
    assert pool.progress().missed == 9 - len(fired)
    pool.wait(MINUTE)
    assert pool.fired() == [*fired, 10 * MINUTE]


@pytest.mark.parametrize("missed", ["skip", "latest", "all"])
def test_a_change_of_leader_is_in_time(missed: str) -> None:
    pool = Pool()
    pool.put(missed=missed)
    pool.now += MINUTE + 5_000
    pool.take_over()
    pool.drain()
    assert pool.outcomes == {"fired": 1}


@pytest.mark.parametrize(
    "timing", [{"every": 60}, {"cron": "* * * * *"}, {"cron": "* * * * *", "timezone": "Asia/Tokyo"}]
)
def test_however_much_was_missed_the_latest_hundred_are_made_up_for_in_short_passes(timing: dict[str, Any]) -> None:
    pool = Pool()
    pool.put(missed="all", overlap="queue", **timing)
    pool.now += 5_000 * MINUTE
    pool.take_over()
    pool.drain()
    assert pool.fired() == [n * MINUTE for n in range(4_901, 5_001)]
    assert pool.progress().missed == 4_900


def test_many_schedules_that_are_due_at_once_fire_in_passes_that_stay_short() -> None:
    pool = Pool()
    for n in range(20):
        pool.put(f"s{n}", missed="all", overlap="queue")
    pool.now += 90 * MINUTE
    pool.take_over()
    sizes = []
    while (due := pool.scheduler.next_due) is not None and due <= pool.now:
        sizes.append(len(pool.step().accepted))
    assert sum(sizes) == 20 * 90
    assert max(sizes) < 700


def test_a_clock_that_jumps_forward_and_back_fires_nothing_twice() -> None:
    pool = Pool()
    pool.put(overlap="queue")
    pool.now += HOUR
    pool.step()
    pool.drain()
    pool.now -= 30 * MINUTE  # another leader, another server's clock
    pool.take_over()
    pool.wait(32 * MINUTE)
    assert pool.fired() == [HOUR, 61 * MINUTE, 62 * MINUTE]


# --- commands


def test_every_command_is_answered_with_what_is_in_force() -> None:
    pool = Pool()
    made = pool.put().schedule
    assert made is not None
    assert (made.state, made.progress.next_due) == ("active", START + MINUTE)
    paused = pool.ask("pause_schedule", id="s", reason="holidays").schedule
    assert paused is not None
    assert (paused.state, paused.progress.reason) == ("paused", "holidays")
    resumed = pool.ask("resume_schedule", id="s").schedule
    assert resumed is not None
    assert resumed.state == "active"
    assert pool.ask("delete_schedule", id="s").schedule is not None
    assert pool.notes == {}
    for kind in ("delete_schedule", "pause_schedule", "resume_schedule", "trigger_schedule"):
        assert pool.ask(kind, id="s").unknown


def test_to_put_what_is_there_already_delays_nothing_and_ends_no_pause() -> None:
    pool = Pool()
    pool.put()
    pool.wait(MINUTE - 5)
    pool.put(task={"capability": "do", "payload": "new"})
    pool.wait(10)
    assert pool.fired() == [MINUTE]
    assert from_json(next(iter(pool.specs.values())))["payload"] == "new"
    pool.ask("pause_schedule", id="s")
    again = pool.put().schedule
    assert again is not None
    assert (again.state, again.progress.fired) == ("paused", 1)


def test_another_timing_counts_from_then_on() -> None:
    pool = Pool()
    pool.put(overlap="queue")
    pool.wait(MINUTE + 10)
    pool.put(every=20, overlap="queue")
    pool.wait(45_000)
    assert pool.fired() == [MINUTE, MINUTE + 20_010, MINUTE + 40_010]


def test_one_that_is_to_be_made_only_if_absent_is_left_as_it_is() -> None:
    pool = Pool()
    pool.put(every=60)
    answer = pool.put(every=5, if_absent=True).schedule
    assert answer is not None
    assert answer.spec.every == 60


def test_a_schedule_may_be_triggered_also_while_it_is_paused() -> None:
    pool = Pool()
    pool.put()
    pool.ask("pause_schedule", id="s")
    pool.wait(1_000)
    answer = pool.ask("trigger_schedule", id="s", occasion="t1")
    assert answer.task_id in pool.stored
    assert pool.progress().triggered == 1
    refused = pool.ask("trigger_schedule", id="s", occasion="t2")
    assert refused.task_id is None
    assert f"task {answer.task_id} of schedule s has not ended" in (refused.problem or "")
    assert pool.ask("trigger_schedule", id="s", occasion="t1").task_id == answer.task_id, "it was sent twice"
    assert len(pool.stored) == 1


def test_too_large_a_schedule_is_refused() -> None:
    pool = Pool()
    assert "pass a reference" in (pool.put(task={"capability": "do", "payload": "x" * 70_000}).problem or "")
    assert pool.notes == {}


def test_what_a_leader_cannot_read_is_kept_and_says_why_it_does_not_fire() -> None:
    pool = Pool()
    pool.put(cron="*/5 * * * *", timezone="Europe/Berlin")
    key = NoteKind.SCHEDULE, "s"
    good = pool.notes[key]
    pool.notes[key] = good.replace(b"Europe/Berlin", b"Europe/Nowhere")
    pool.take_over()
    pool.step()
    pool.wait(HOUR)
    assert pool.fired() == []
    assert "no time zone 'Europe/Nowhere'" in (pool.progress().problem or "")
    pool.notes[key] = good
    pool.take_over()
    pool.drain()
    assert pool.fired() == [HOUR - HOUR % (5 * MINUTE)]
    assert pool.progress().problem is None


# --- a leader that dies between two calls


@pytest.mark.parametrize("calls", [0, 1, 2, 3])
@pytest.mark.parametrize("meanwhile", ["they wait", "one has ended", "all have ended"])
def test_a_leader_that_dies_while_it_stores_a_firing_neither_loses_nor_doubles_it(calls: int, meanwhile: str) -> None:
    pool = Pool()
    schedules = [f"s{n}" for n in range(250)]
    for name in schedules:
        pool.put(name, overlap="skip")
    pool.step(pool.sign_in(slots=1_000, lease=36_000))
    pool.now += MINUTE + 3
    pool.store(pool.scheduler.step([], pool.now), calls)
    assert len(pool.specs) == (0, 100, 200, 250)[calls]
    pool.take_over()
    if pool.agent().tasks and meanwhile != "they wait":
        tasks = list(pool.agent().tasks.values())
        ended = tasks[:1] if meanwhile == "one has ended" else tasks
        results = tuple(TaskResult(task_id=t.id, attempt=1, status=TaskStatus.COMPLETED) for t in ended)
        report = Reported(ReportMessage(agent_id="a", session="a1", results=results), pool.now)
        # They end in the pass in which the successor fires, and that one is stored in part, too.
        pool.store(pool.scheduler.step([report], pool.now), 1)
        pool.take_over()
    pool.drain()
    for name in schedules:
        assert pool.fired(name) == [MINUTE]
        assert pool.progress(name).fired == 1
    pool.finish()
    pool.wait(MINUTE)
    for name in schedules:
        assert pool.fired(name) == [MINUTE, 2 * MINUTE], "what is no more overlaps nothing"


def test_a_row_that_is_made_up_for_is_stored_once_though_leader_after_leader_dies_over_it() -> None:
    pool = Pool()
    for n in range(4):
        pool.put(f"s{n}", missed="all", overlap="queue")
    pool.now += 60 * MINUTE
    for calls in (1, 2, 1, 2):
        pool.take_over()
        pool.store(pool.scheduler.step([], pool.now), calls)
        pool.now += 61_000
    pool.take_over()
    pool.drain()
    for n in range(4):
        row = pool.fired(f"s{n}")
        assert all(b - a == MINUTE for a, b in pairwise(sorted(row)))
        assert len(row) == 64


def test_a_trigger_that_is_read_again_is_one_task() -> None:
    pool = Pool()
    pool.put()
    command = Command.model_validate({"type": "trigger_schedule", "id": "s"}).root
    at = pool.now
    pool.store(pool.scheduler.step([Commanded(command, at)], pool.now), 0)
    pool.now += 5_000
    pool.take_over()
    pool.step(Commanded(command, at))
    pool.take_over()
    pool.step(Commanded(command, at))
    assert len(pool.stored) == 1
