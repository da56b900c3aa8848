"""A random life of a pool, on the real scheduler, the real ledger and a real server, against a small model.

The model knows what was submitted and what has ended; everything else is checked between the three accounts that there
are of a pool: the records, the indexes, and the leader's memory. Leaders crash between passes, within them, and
between two calls that store one of them; replies are lost, former leaders write on, agents vanish, come back, and say
what is no longer true.
"""

import asyncio
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from pydantic_core import from_json

from bus.connection import connect
from bus.ids import TaskId, check_pool, new_nonce
from bus.messages import (
    CancelTasks,
    CapabilitySpec,
    Command,
    HandBack,
    Heartbeat,
    PurgeDead,
    Register,
    Report,
    RequeueDead,
    TaskHeader,
    TaskResult,
    TaskUpdate,
    Unregister,
)
from bus.names import DATA_FIELD, PoolNames
from bus.records import Guard
from bus.retries import RetryPolicy
from bus.states import TaskPriority, TaskStatus
from dispatcher import ledger as ledger_module
from dispatcher.commit_call import Inputs
from dispatcher.core.config import SchedulerConfig
from dispatcher.core.decisions import Decisions, NoteKind
from dispatcher.core.events import Beat, Commanded, Duplicate, Event, Horizon, Reported, SignedIn, SignedOut, Submitted
from dispatcher.core.scheduler import Scheduler
from dispatcher.leadership import Lead, Leadership
from dispatcher.ledger import FencedError, Ledger, in_parts
from dispatcher.loading import load_agents, load_notes, load_tasks
from dispatcher.revival import with_records
from tests.support.server import RunningServer
from tests.support.tapped import DiedError, Life, Tapped

AGENTS = {"a": 1, "b": 2, "c": 3}
"""The agents and their slots."""
LEASE_S = 5.0
START = 1_800_000_000_000

agents = st.sampled_from(sorted(AGENTS))

KINDS = (
    "submit",
    "submit",
    "submit twice",
    "submit again",
    "cancel",
    "cancel",
    "cancel early",
    "start",
    "complete",
    "fail",
    "requeue",
    "requeue",
    "purge",
)


class Pool(RuleBasedStateMachine):
    """One pool's life."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self.names = PoolNames(check_pool(f"m{new_nonce()[-12:]}"))
        self.config = SchedulerConfig(prefetch_ms=0, retry=RetryPolicy(base=2.0), max_pending=1_000)
        self.now = START
        self.sessions: dict[str, str] = {}
        self.submitted: set[TaskId] = set()
        self.said: Counter[str] = Counter()
        """How often the events told that a task has ended."""
        self.ends: dict[str, bytes] = {}
        """The state in which each ended task was first seen, in its present life."""
        self.past: Counter[str] = Counter()
        """How many lives of each task are over."""
        self.to_purge: set[str] = set()
        """All that anybody ever wanted to be purged."""
        self.cursor = "0-0"
        self.lose_reply = False
        self.calls_to_live: int | None = None
        """After so many calls of its next long pass the leader dies."""
        self.former: list[Lead] = []
        self.lead: Lead
        self.scheduler: Scheduler

    def run(self, work: Any) -> Any:
        """Run a coroutine to its end."""
        return self.runner.run(work)

    @initialize()
    def begin(self) -> None:
        """Connect, and win the first lead."""
        self.run(self._begin())

    async def _begin(self) -> None:
        self.redis: Any = connect(self.url, name="model")
        self.ledger = Ledger(self.redis, self.names)
        await self._lead()
        await self._store(self.scheduler.step((), self.now))

    async def _lead(self) -> None:
        """Become the leader as a new dispatcher does."""
        leadership = Leadership(self.redis, self.names, "model", lease_ms=600_000)
        await self.redis.delete(self.names.leader)
        won = await leadership.acquire()
        assert won is not None
        self.lead = won
        self.scheduler = Scheduler(self.config, seed=1)
        notes = await load_notes(self.redis, self.names)
        self.scheduler.load(await load_agents(self.redis, self.names, self.now), (), self.now, notes)
        async for page in load_tasks(self.redis, self.names):
            self.scheduler.load((), page, self.now)

    def teardown(self) -> None:
        """Remove the pool's keys."""
        if hasattr(self, "redis"):
            self.run(self._end())
        self.runner.close()

    async def _end(self) -> None:
        async for key in self.redis.scan_iter(f"{self.names.root}*", count=1000):
            await self.redis.unlink(key)
        await self.redis.aclose()

    # --- a pass

    def feed(self, *events: Event) -> Decisions:
        """Let the scheduler decide, and store it."""
        brought = self.run(with_records(self.redis, self.names, events))
        decisions = self.scheduler.step(brought, self.now)
        try:
            self.run(self._store(decisions))
        except DiedError:
            self.former.append(self.lead)
            self.run(self._lead())
            return self.feed(*events)  # they are not acknowledged, so they are read again
        return decisions

    async def _store(self, decisions: Decisions) -> None:
        calls = len(in_parts(decisions))
        if self.calls_to_live is not None and calls > 1:
            calls, self.calls_to_live = min(self.calls_to_live, calls - 1), None
            mortal: Any = Tapped(self.redis, before=Life(calls))
            await Ledger(mortal, self.names).commit(self.lead, decisions, Inputs(), self.now)
        duplicates = await self.ledger.commit(self.lead, decisions, Inputs(), self.now)
        if self.lose_reply:
            self.lose_reply = False
            assert await self.ledger.commit(self.lead, decisions, Inputs(), self.now) == duplicates
        if duplicates:
            again = self.scheduler.step([Duplicate(task_id) for task_id in duplicates], self.now)
            await self._store(again)

    # --- clients

    @rule(priority=st.sampled_from(TaskPriority), delay=st.sampled_from([0, 0, 0, 3]), attempts=st.integers(1, 3))
    def submit(self, priority: TaskPriority, delay: int, attempts: int) -> None:
        """Submit a new task."""
        task_id = TaskId(f"{self.names.pool}.t{len(self.submitted)}")
        self.submitted.add(task_id)
        self.feed(self._submission(task_id, priority, delay, attempts))

    @rule(capability=st.sampled_from(["nobody", "work"]))
    def submit_what_expires(self, capability: str) -> None:
        """Submit a task that fails unless an agent takes it at once."""
        task_id = TaskId(f"{self.names.pool}.t{len(self.submitted)}")
        self.submitted.add(task_id)
        event = self._submission(task_id, TaskPriority.MEDIUM, 0, 1)
        event.header = event.header.model_copy(update={"capability": capability, "queue_timeout": 0.001})
        event.body = event.header.model_dump_json().encode()
        self.feed(event)
        self.now += 2
        self.feed()

    @precondition(lambda self: self.submitted)
    @rule(data=st.data())
    def submit_again(self, data: st.DataObject) -> None:
        """Submit a task that was submitted before, as a repeated XADD or a used key does."""
        self.feed(self._submission(self._some(data), TaskPriority.HIGH, 0, 1))

    def _submission(self, task_id: TaskId, priority: TaskPriority, delay: int, attempts: int) -> Submitted:
        header = TaskHeader(
            id=task_id, capability="work", priority=priority, delay=delay, max_attempts=attempts, reply_to="c1"
        )
        if (
            task_id in self.submitted and len(self.submitted) % 2
        ):  # as the script does, for a submission that another wrote by hand as well
            self.run(self.redis.sadd(self.names.queue("*"), task_id))
        return Submitted(task_id, header, header.model_dump_json().encode(), self.now)

    @precondition(lambda self: self.submitted)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """Cancel a task, whatever its status."""
        self.feed(self._cancel(self._some(data)))

    @precondition(lambda self: any(state.startswith(b"FAILED") for state in self.ends.values()))
    @rule(data=st.data(), purge=st.booleans(), twice=st.booleans())
    def of_dead_letters(self, data: st.DataObject, *, purge: bool, twice: bool) -> None:
        """Requeue or purge tasks, most of them dead."""
        self.now += 1  # no two commands of one operator are of the same instant
        self.feed(*[self._of_dead(data, "purge" if purge else "requeue")] * (1 + twice))

    def _of_dead(self, data: st.DataObject, kind: str) -> Event:
        dead = sorted(one for one, state in self.ends.items() if state.startswith(b"FAILED"))
        ids = tuple(data.draw(st.lists(st.sampled_from(dead or sorted(self.submitted)), min_size=1, max_size=4)))
        if kind == "purge":
            self.to_purge.update(ids)
            return Commanded(PurgeDead(task_ids=ids, reply_to="op"), self.now)
        return Commanded(RequeueDead(task_ids=ids, by="op", reply_to="op"), self.now)

    def _some(self, data: st.DataObject) -> TaskId:
        return data.draw(st.sampled_from(sorted(self.submitted)))

    @rule(data=st.data(), kinds=st.lists(st.sampled_from(KINDS), min_size=2, max_size=8))
    def all_at_once(self, data: st.DataObject, kinds: list[str]) -> None:
        """Let one pass take what several clients and agents want, however that goes together."""
        self.feed(*(event for kind in kinds for event in self._events(kind, data)))

    def _events(self, kind: str, data: st.DataObject) -> list[Event]:  # noqa: PLR0911 - one per kind
        match kind:
            case "submit" | "submit twice":
                task_id = TaskId(f"{self.names.pool}.t{len(self.submitted)}")
                self.submitted.add(task_id)
                return [self._submission(task_id, TaskPriority.MEDIUM, 0, 2)] * (2 if kind == "submit twice" else 1)
            case "cancel early":
                return [self._cancel(TaskId(f"{self.names.pool}.t{len(self.submitted)}"))]
            case "submit again" if self.submitted:
                return [self._submission(self._some(data), TaskPriority.LOW, 0, 1)]
            case "cancel" if self.submitted:
                return [self._cancel(self._some(data))]
            case "requeue" | "purge" if self.ends:
                return [self._of_dead(data, kind)]
            case "start" | "complete" | "fail" if self._at_work():
                agent, task = data.draw(st.sampled_from(self._at_work()))
                return [self._report(agent, task.id, task.attempt, kind)]
            case _:
                return []

    def _cancel(self, task_id: TaskId) -> Event:
        return Commanded(Command(CancelTasks(task_ids=(task_id,), reason="why")).root, self.now)

    # --- agents

    @rule(agent=agents)
    def sign_in(self, agent: str) -> None:
        """Let an agent begin a new session."""
        self.sessions[agent] = f"s{new_nonce()[-10:]}"
        self.feed(
            SignedIn(
                Register(
                    agent_id=agent,
                    session=self.sessions[agent],
                    capabilities=(CapabilitySpec(name="work"),),
                    slots=AGENTS[agent],
                    lease=LEASE_S,
                ),
                self.now,
            )
        )

    @precondition(lambda self: self.sessions)
    @rule(data=st.data())
    def sign_out(self, data: st.DataObject) -> None:
        """Let an agent leave in good order."""
        agent = data.draw(st.sampled_from(sorted(self.sessions)))
        self.feed(SignedOut(Unregister(agent_id=agent, session=self.sessions.pop(agent)), self.now))

    @precondition(lambda self: self.sessions)
    @rule(data=st.data(), forgetful=st.booleans())
    def beat(self, data: st.DataObject, *, forgetful: bool) -> None:
        """Let an agent beat, with all that it holds or as one to which nothing was delivered."""
        agent = data.draw(st.sampled_from(sorted(self.sessions)))
        holding = () if forgetful else tuple((t.id, t.attempt) for t in self._held(agent))
        beat = Heartbeat(agent_id=agent, session=self.sessions[agent], holding=holding)
        self.feed(Beat(beat, self.now), Horizon(self.now))

    def _held(self, agent: str) -> list[Any]:
        known = self.scheduler.board.fleet.agents.get(agent)
        return [] if known is None else list(known.tasks.values())

    @precondition(lambda self: self._at_work())
    @rule(
        data=st.data(),
        what=st.sampled_from(["start", "progress", "complete", "complete", "fail", "reject", "return", "old"]),
    )
    def report(self, data: st.DataObject, what: str) -> None:
        """Let an agent report on a task in its hands, truly or of an attempt that is over."""
        agent, task = data.draw(st.sampled_from(self._at_work()))
        attempt = task.attempt if what != "old" else max(1, task.attempt - 1)
        self.feed(self._report(agent, task.id, attempt, what))

    def _report(self, agent: str, task_id: str, attempt: int, what: str) -> Event:
        session = self.sessions.get(agent, "gone")
        key: dict[str, Any] = {"task_id": task_id, "attempt": attempt}
        parts: dict[str, Any]
        match what:
            case "start" | "progress":
                parts = {"updates": (TaskUpdate(**key, progress=0.5 if what == "progress" else None),)}
            case "return":
                parts = {"returned": (HandBack(**key),)}
            case "complete" | "old":
                parts = {"results": (TaskResult(**key, status=TaskStatus.COMPLETED, output={"n": 1}, duration=0.1),)}
            case _:
                retryable = what == "fail"
                parts = {"results": (TaskResult(**key, status=TaskStatus.FAILED, retryable=retryable),)}
        return Reported(Report(agent_id=agent, session=session, **parts), self.now)

    @precondition(lambda self: self._at_work())
    @rule(data=st.data())
    def reject(self, data: st.DataObject) -> None:
        """Let an agent say that a task can never be done."""
        agent, task = data.draw(st.sampled_from(self._at_work()))
        self.feed(self._report(agent, task.id, task.attempt, "reject"))

    def _at_work(self) -> list[tuple[str, Any]]:
        return [(agent, task) for agent in sorted(AGENTS) for task in self._held(agent)]

    # --- time and misfortune

    @rule(ms=st.sampled_from([1, 500, 2_500, 6_000]), seen=st.booleans())
    def advance(self, ms: int, *, seen: bool) -> None:
        """Let time pass, with or without having read all that agents wrote."""
        self.now += ms
        self.feed(*([Horizon(self.now)] if seen else []))

    @rule()
    def lose_a_reply(self) -> None:
        """Lose the reply of the next commit, so that it is sent again."""
        self.lose_reply = True

    @rule(calls=st.integers(1, 4))
    def die_within_a_pass(self, calls: int) -> None:
        """Kill the leader when it has made some of the calls that store its next long pass."""
        self.calls_to_live = calls

    @rule(within=st.booleans())
    def crash(self, *, within: bool) -> None:
        """Kill the leader, perhaps between a decision and its commit, and let another take over."""
        if within:
            self.scheduler.step([], self.now + 100)  # decided, and lost with its memory
        self.former.append(self.lead)
        self.run(self._lead())
        self.feed(Horizon(self.now))

    @precondition(lambda self: self.former)
    @rule(data=st.data())
    def a_former_leader_writes(self, data: st.DataObject) -> None:
        """Let one that was replaced try to store something; the fence must hold it off."""
        stale = data.draw(st.sampled_from(self.former))
        decisions = Scheduler(self.config, seed=9).step(
            [self._submission(TaskId(f"{self.names.pool}.zombie"), TaskPriority.URGENT, 0, 1)], self.now
        )
        with pytest.raises(FencedError):
            self.run(self.ledger.commit(stale, decisions, Inputs(), self.now))

    # --- what must always hold

    @invariant()
    def all_accounts_agree(self) -> None:
        """Compare records, indexes, assignment streams, events and memory."""
        if hasattr(self, "redis"):
            self.run(self._check())

    async def _check(self) -> None:
        names = self.names
        records = {task_id: await self.redis.hget(names.task(task_id), "state") for task_id in self.submitted}
        await self._hear()
        for task_id in [task_id for task_id, state in records.items() if state is None]:
            self._is_purged(task_id)
            del records[task_id]
        guards = {task_id: Guard.parse(state.decode()) for task_id, state in records.items()}
        await self._check_ends(records, guards)
        await self._check_memory(guards)
        await self._check_expiry(guards)
        await self._check_indexes(guards)
        await self._check_assignments(guards)

    async def _hear(self) -> None:
        """Take what the events tell: ends, and which tasks have left theirs."""
        for entry, fields in await self.redis.xrange(self.names.events, f"({self.cursor}"):
            self.cursor = entry.decode()
            for told in decoded(fields).get("tasks", []):
                task_id = told["task_id"]
                if TaskStatus(told["status"]).terminal:
                    self.said[task_id] += 1
                    self.ends.setdefault(task_id, b"")
                elif task_id in self.ends:
                    state = self.ends.pop(task_id)
                    assert state == b"" or state.startswith(b"FAILED")
                    assert told.get("reason") == "requeued" or task_id in self.to_purge, "a terminal state changed"
                    self.past[task_id] += 1

    def _is_purged(self, task_id: TaskId) -> None:
        assert task_id in self.to_purge, "a submitted task was lost"
        state = self.ends.pop(task_id, None)
        if state is not None:
            assert state == b"" or state.startswith(b"FAILED"), "a record was deleted that was no dead letter's"
            self.past[task_id] += 1

    async def _check_ends(self, records: dict[TaskId, bytes], guards: dict[TaskId, Guard]) -> None:
        for task_id, guard in guards.items():
            if guard.status.terminal:
                end = self.ends.get(task_id) or records[task_id]
                self.ends[task_id] = end
                assert end == records[task_id], "a terminal state changed"
        assert self.said == self.past + Counter(self.ends.keys()), "an end was told not once"

    async def _check_expiry(self, guards: dict[TaskId, Guard]) -> None:
        for task_id, guard in guards.items():
            expires = await self.redis.pttl(self.names.task(task_id)) >= 0
            assert expires == guard.status.terminal, f"{task_id}: {guard} expires: {expires}"

    async def _check_memory(self, guards: dict[TaskId, Guard]) -> None:
        live = {task_id: str(guard) for task_id, guard in guards.items() if not guard.status.terminal}
        board = self.scheduler.board
        assert {task.id: task.guard for task in board.tasks.values()} == live
        noted = {note.field for note in await load_notes(self.redis, self.names) if note.kind is NoteKind.TOMBSTONE}
        assert noted == set(board.tombstones)
        for agent in board.fleet.agents.values():
            held = {task_id: guard.session for task_id, guard in guards.items() if guard.agent_id == agent.id}
            assert set(agent.tasks) == held.keys(), "a slot was leaked"
            own = list(held.values()).count(agent.session)  # what an earlier session has takes no room of this one
            assert own <= agent.slots, "more tasks than slots"
            assert agent.load_ms >= -1e-6

    async def _check_indexes(self, guards: dict[TaskId, Guard]) -> None:
        names = self.names
        found: dict[str, set[str]] = {}
        for index in ("pending", "delayed", "leases", "finished", "dead"):
            found[index] = {raw.decode() for raw in await self.redis.zrange(getattr(names, index), 0, -1)}
        by_status: dict[TaskStatus, set[str]] = {status: set() for status in TaskStatus}
        for task_id, guard in guards.items():
            by_status[guard.status].add(task_id)
        assert found["pending"] | found["delayed"] == by_status[TaskStatus.PENDING]
        assert not found["pending"] & found["delayed"]
        assert found["leases"] == by_status[TaskStatus.ASSIGNED] | by_status[TaskStatus.RUNNING]
        ended = by_status[TaskStatus.COMPLETED] | by_status[TaskStatus.FAILED] | by_status[TaskStatus.CANCELLED]
        assert found["finished"] == ended
        queue: Any = await self.redis.smembers(self.names.queue("*"))
        assert {raw.decode() for raw in queue} == by_status[TaskStatus.PENDING]
        assert found["dead"] == by_status[TaskStatus.FAILED]

    async def _check_assignments(self, guards: dict[TaskId, Guard]) -> None:
        """Check that an entry stands in an agent's stream exactly as long as the task is ASSIGNED to it."""
        expected = Counter(
            (guard.agent_id, task_id, guard.attempt)
            for task_id, guard in guards.items()
            if guard.status is TaskStatus.ASSIGNED
        )
        found: Counter[tuple[str, str, int]] = Counter()
        for agent in AGENTS:
            for _, fields in await self.redis.xrange(self.names.assignments(agent)):
                body = decoded(fields)
                found[agent, body["task_id"], body["attempt"]] += 1
        assert found == expected


def decoded(fields: dict[bytes, bytes]) -> Any:
    """Return the body of an entry."""
    return from_json(fields[DATA_FIELD.encode()])


@pytest.mark.timeout(900)
def test_whatever_happens_no_task_is_lost_and_none_ends_twice(
    redis_server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    Pool.url = redis_server.url
    monkeypatch.setattr(ledger_module, "BATCH", 2)  # so that most passes take several calls
    run_state_machine_as_test(
        Pool,
        settings=settings(
            max_examples=40,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
