"""A pool in virtual time: clients, agents, leaders and the network between them, all drawn from one seed.

Nothing here is concurrent: whatever happens is an entry of one agenda. The leader is the real scheduler. Agents read
their streams, run tasks for a while, report and beat, as the runtime does; they crash, freeze and wake as zombies.
Every message takes its time, and some of a reader's entries are seen late or twice. Leaders die between a decision and
its commit, and after it.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from heapq import heappop, heappush
from random import Random
from typing import Any

from bus.ids import DEFAULT_POOL, scheduled_task_id
from bus.messages import (
    AgentCommand,
    CancelTasks,
    CapabilitySpec,
    Command,
    HandBack,
    Heartbeat,
    Register,
    Report,
    ScheduleProgress,
    TaskHeader,
    TaskResult,
    TaskUpdate,
    Unregister,
)
from bus.records import Guard
from bus.states import AgentStatus, TaskPriority, TaskStatus
from dispatcher.core.config import SchedulerConfig
from dispatcher.core.decisions import Decisions, NoteKind
from dispatcher.core.events import (
    Beat,
    Commanded,
    Duplicate,
    Event,
    Found,
    Horizon,
    Reported,
    SignedIn,
    SignedOut,
    Submitted,
)
from dispatcher.core.record import restore_agent
from dispatcher.core.scheduler import Scheduler
from tests.simulation.ledger import MemoryLedger

START = 1_800_000_000_000
CALM_AT = 60_000
"""No fault happens later than so many ms after the start."""
LEASE_MS = 5_000
ORPHAN_MS = 12_000
"""A child that the ledger has may outlive a parent that ended badly by so much: its grace, and a leader that dies."""
DEEPEST = 3
SCHEDULES: dict[str, dict[str, Any]] = {
    "all": {"every": 1.5, "overlap": "queue", "missed": "all"},
    "skip": {"every": 2, "overlap": "skip"},
    "replace": {"every": 3, "overlap": "replace", "missed": "skip"},
}
"""What recurs for the first half of a minute; of the first no instant may be lost."""
FROM_AGENTS = (Reported, Beat, SignedIn, SignedOut)


class Simulation:
    """One run. `run` returns when everything has ended, and fails if it does not."""

    def __init__(self, seed: int, *, tasks: int = 25, agents: int = 4) -> None:
        self.rng = Random(seed)
        self.now = START
        self.ledger = MemoryLedger()
        self.submitted: set[str] = set()
        self.executions: dict[str, int] = {}
        self.parents: dict[str, str] = {}
        """Parent of each child."""
        self.ended_at: dict[str, int] = {}
        self._agenda: list[tuple[int, int, Callable[[], None]]] = []
        self._sequence = 0
        self._inbound: list[tuple[int, Event]] = []
        self._wakes = 0
        self.schedules: dict[str, int] = {}
        """Of each schedule, until when it recurs."""
        self._found: list[Event] = []
        """What the ledger has answered to the leader's inquiries."""
        self.config = SchedulerConfig(
            timers_per_pass=self.rng.choice((3, 500)),
            children_per_pass=self.rng.choice((1, 500)),
            # Nobody heeds it here, and what counts must be right all the same.
            max_pending=self.rng.choice((None, 1, 10)),
            fail_fast_grace_ms=self.rng.choice((0, 3_000)),
        )
        self.scheduler = self._leader()
        self.agents = [Agent(self, f"a{n}", slots=2 + n % 3) for n in range(agents)]
        for name in self.rng.sample(sorted(SCHEDULES), self.rng.randrange(3)):
            self.at(self.rng.randrange(3_000), partial(self._put, name))
        for number in range(tasks):
            self.at(self.rng.randrange(30_000), partial(self._submit, number))
        for _ in range(self.rng.randrange(4)):
            self.at(self.rng.randrange(CALM_AT), self._crash)
        for _ in range(self.rng.randrange(8)):
            self.at(self.rng.randrange(CALM_AT), self._operate)

    # --- the agenda

    @property
    def calm(self) -> bool:
        """True when no more faults happen."""
        return self.now >= START + CALM_AT

    def at(self, delay: int, what: Callable[[], None]) -> None:
        """Do `what` in `delay` ms."""
        self._sequence += 1
        heappush(self._agenda, (self.now + delay, self._sequence, what))

    def run(self, limit_ms: int = 3_600_000) -> None:
        """Let time pass until every task has ended."""
        while len(self.ledger.ends) < len(self.submitted | set(self.ledger.tasks)) or not self.calm or self._due():
            assert self._agenda, "nothing will ever happen again"
            self.now, _, what = heappop(self._agenda)
            assert self.now < START + limit_ms, f"still live: {self._live()}"
            what()
        assert set(self.ledger.ends) == self.submitted | self._fired()

    def _live(self) -> list[str]:
        return [f"{t}={r.guard}" for t, r in self.ledger.tasks.items() if t not in self.ledger.ends]

    def schedule_progress(self) -> dict[str, ScheduleProgress]:
        """Return how far each schedule is."""
        kind = NoteKind.SCHEDULE_PROGRESS
        return {
            name: ScheduleProgress.model_validate_json(value)
            for (of, name), value in self.ledger.notes.items()
            if of is kind
        }

    def _due(self) -> bool:
        """Tell whether a schedule has not ended, or was not even read."""
        found = self.schedule_progress()
        return len(found) < len(self.schedules) or any(one.next_due is not None for one in found.values())

    def _fired(self) -> set[str]:
        """Return the tasks of schedules; fail if one was lost, or made twice."""
        made: set[str] = set()
        for name, progress in self.schedule_progress().items():
            due = [
                run.due
                for record in self.ledger.tasks.values()
                if (run := TaskHeader.model_validate_json(record.spec).schedule) is not None and run.id == name
            ]
            assert len(set(due)) == len(due) == progress.fired, f"schedule {name}: {progress} and {due}"
            if name == "all":
                row = range(progress.anchor + 1_500, self.schedules[name] + 1, 1_500)
                assert sorted(due) == list(row), f"schedule {name}: not each of {list(row)}: {sorted(due)}"
            made |= {scheduled_task_id(DEFAULT_POOL, name, at) for at in due}
        return made

    def _check(self) -> None:
        for agent in self.scheduler.board.fleet.agents.values():
            there = [task for task in agent.tasks.values() if task.current is not None and not task.current.waiting]
            used = sum(task.terms.requirement.slots for task in there)
            assert agent.used == used, f"{agent.id}: slots leaked"
        if (NoteKind.BOUND, "*") in self.ledger.notes:
            waiting = {t for t, record in self.ledger.tasks.items() if record.guard.startswith("PENDING")}
            assert self.ledger.queues.get("*", set()) == waiting, "what counts for the bound is not what waits"
        assert not self.scheduler.board.hasty.keys() - self.scheduler.board.tasks.keys(), "an ended task is watched"
        for task_id, guard in self.ledger.ends.items():
            assert self.ledger.tasks[task_id].guard == guard, f"{task_id}: a terminal state changed"
            self.ended_at.setdefault(task_id, self.now)
        for child, parent in self.parents.items():
            record = self.ledger.tasks.get(child)
            if record is not None and child not in self.ledger.ends and self._ended_badly(parent):
                since = max(self.ended_at[parent], record.at)
                assert self.now - since < ORPHAN_MS, f"{child} outlives {parent}"

    def _ended_badly(self, task_id: str) -> bool:
        end = self.ledger.ends.get(task_id)
        return end is not None and Guard.parse(end).status is not TaskStatus.COMPLETED

    # --- clients

    def _submit(self, number: int) -> None:
        rng = self.rng
        task_id = f"default.t{number:03d}"
        self.submitted.add(task_id)
        header = TaskHeader.model_validate(
            {
                "id": task_id,
                "capability": "do",
                "priority": rng.choice(list(TaskPriority)),
                "max_attempts": rng.choice((2, 3, 8)),
                "run_timeout": rng.choice((None, None, 4)),
                "queue_timeout": rng.choice((None, None, 40)),
                "fairness_key": rng.choice((None, "k")),
                "limits": rng.choice(([], [], [{"key": "l", "concurrency": 2}], [{"key": "r", "rate": "2/s"}])),
                "slots": rng.choice((1, 1, 1, 2)),
                "sticky": rng.choice((None, "s1", "s2")),
                "fail_fast": rng.random() < 0.1,
            }
        )
        event = Submitted(task_id, header, header.model_dump_json().encode(), self.now)
        self.send(event)
        if rng.random() < 0.2:  # the reply was lost, and the client sends it again
            self.at(rng.randrange(20_000), lambda: self.send(event))
        if rng.random() < 0.15:
            later = rng.randrange(10_000)
            self.at(later, lambda: self._cancel(task_id))
            self.at(later, lambda: self._cancel(task_id))  # impatient

    def submit_child(self, parent: str, attempt: int, depth: int, number: int) -> str:
        """Submit a child of an attempt; the next attempt that asks for the same asks for this one."""
        task_id = f"{parent}-{number}"
        self.submitted.add(task_id)
        self.parents[task_id] = parent
        header = TaskHeader(
            id=task_id,
            capability="do",
            parent=parent,
            parent_attempt=attempt,
            depth=depth,
            run_timeout=self.rng.choice((None, 4)),
        )
        event = Submitted(task_id, header, header.model_dump_json().encode(), self.now)
        # Streams have no order among each other: the parent's end may be read before.
        self.at(self.rng.choice((0, 0, 30, 2_000)), lambda: self.send(event))
        return task_id

    def _put(self, name: str) -> None:
        self.schedules[name] = START + 30_000
        task = {"capability": "do", "max_attempts": 8}
        spec = {"id": name, "until": START + 30_000, "task": task, **SCHEDULES[name]}
        self.send(Commanded(Command.model_validate({"type": "put_schedule", "schedule": spec}).root, self.now))

    def _cancel(self, task_id: str) -> None:
        self.send(Commanded(Command(CancelTasks(task_ids=(task_id,), reason="why not")).root, self.now))

    # --- operators

    def _operate(self) -> None:
        rng = self.rng
        kind = rng.choice(("pause", "pause", "resume", "drain", "restart"))
        options = {"lasts": rng.choice((1, 20))} if kind == "pause" else {"deadline": rng.choice((None, 1, 5))}
        options |= {"forget": kind == "drain" and rng.random() < 0.5}
        command = {"type": kind, "agent_id": rng.choice(self.agents).id, **options}
        self.send(Commanded(AgentCommand.model_validate(command), self.now))

    # --- the leader

    def send(self, event: Event) -> None:
        """Write a message to its stream; the leader reads it some time later."""
        self._inbound.append((self.now, event))
        self.wake(self.rng.choice((0, 1, 5, 5, 40)))

    def wake(self, delay: int) -> None:
        """Let the leader make a pass."""
        self._wakes += 1
        self.at(delay, self._pass)

    def _pass(self) -> None:
        self._wakes -= 1
        self._lead()
        self._check()

    def _lead(self) -> None:
        keep = self.rng.randrange(3) if self.rng.random() < 0.1 else 0  # what this read does not bring
        taken = self._inbound[: len(self._inbound) - keep]
        unread = [at for at, event in self._inbound[len(taken) :] if isinstance(event, FROM_AGENTS)]
        horizon = min([self.now, *unread]) - 1
        events = [_dated(event, at) for at, event in taken]
        found, self._found = self._found, []
        decisions = self.scheduler.step([*events, *found, Horizon(horizon)], self.now)
        for given in decisions.transitions:
            if given.status is TaskStatus.ASSIGNED and given.agent_id is not None and given.reason is None:
                agent = self.scheduler.board.fleet.agents[given.agent_id]
                assert agent.pause is None, f"{agent.id} is paused and was given {given.task_id}"
                assert agent.status is not AgentStatus.DRAINING, f"{agent.id} leaves and was given {given.task_id}"
        if not self.calm and self.rng.random() < 0.002:
            self._store_some(decisions)
            self._crash()  # decided, and not stored, or not all of it: the entries are still there
            return
        del self._inbound[: len(taken)]
        self.ledger.now = self.now
        known = self.ledger.commit(decisions)
        if known:
            self.ledger.commit(self.scheduler.step([Duplicate(task_id) for task_id in known], self.now))
        for task_id in decisions.inquiries:
            record = self.ledger.tasks.get(task_id)
            self._found.append(Found(task_id, record.guard if record else ""))
        if self._found:
            self.wake(self.rng.choice((0, 5)))
        due = self.scheduler.next_due
        if not self._wakes and due is not None:
            self.wake(max(0, min(due - self.now, 250)))

    def _store_some(self, decisions: Decisions) -> None:
        """Store the first tasks of a pass, as a leader does that dies between two calls of the script."""
        changes = decisions.changes[: self.rng.randrange(1 + len(decisions.changes))]
        if not any(not one.before and one.task_id in self.ledger.tasks for one in changes):
            rates = [note for note in decisions.notes if note.kind is NoteKind.RATE]  # they go with the first call
            self.ledger.commit(replace(decisions, changes=changes, agents=[], notes=rates, instructions=[], queues=[]))

    def _crash(self) -> None:
        """Let another leader take over after a while."""
        self._found = []
        self.scheduler = self._leader()
        self.wake(self.rng.choice((0, 3_000)))

    def _leader(self) -> Scheduler:
        scheduler = Scheduler(self.config, seed=self.rng.randrange(1_000))
        fleet = [restore_agent(record, self.now) for record in self.ledger.agents.values()]
        scheduler.load(fleet, self.ledger.live(), self.now, self.ledger.noted())
        return scheduler


def _dated(event: Event, at: int) -> Event:
    """Return the event with the time of its entry."""
    if isinstance(event, Submitted | Commanded | Reported | Beat | SignedIn | SignedOut):
        event.at = at
    return event


class Agent:
    """An agent as the runtime is one: reads, runs, reports, beats; and what may befall it."""

    def __init__(self, world: Simulation, agent_id: str, *, slots: int) -> None:
        self.world = world
        self.id = agent_id
        self.slots = slots
        self.session = ""
        self.frozen_until = 0
        self._lives = 0
        world.at(world.rng.randrange(2_000), self._begin)

    # --- a life

    def _begin(self) -> None:
        self._lives += 1
        self.session = f"s{self._lives}"
        self.held: dict[tuple[str, int], dict[str, Any]] = {}
        self.running: set[tuple[str, int]] = set()
        self.stopping: set[tuple[str, int]] = set()
        self.waiting: set[tuple[str, int]] = set()
        self.returning: list[tuple[str, int]] = []
        self.cursor = self.heard = 0
        self.past: set[tuple[str, int]] = set()
        self.stopped = False
        self.obeys = 0
        self.paused = False
        self.leaving = False
        self._register()
        self._later(500, self._beat)
        self._later(20, self._read)
        if not self.world.calm:
            self._later(self.world.rng.randrange(5_000, 60_000), self._misfortune)

    def _later(self, delay: int, what: Callable[[], None]) -> None:
        """Do `what` later, in this life and when not frozen."""
        life = self._lives

        def then() -> None:
            if self._lives != life or self.stopped:
                return
            if self.frozen_until > self.world.now:
                self._later(self.frozen_until - self.world.now, what)
                return
            what()

        self.world.at(delay, then)

    def _misfortune(self) -> None:
        rng = self.world.rng
        if self.world.calm:
            return
        if rng.random() < 0.5:
            self._lives += 1  # killed: nothing more of this life happens
            if self.id == "a0" or rng.random() < 0.7:  # some never come back; one always does
                self.world.at(rng.choice((200, 8_000)), self._begin)
        else:
            self.frozen_until = self.world.now + rng.choice((1_000, 9_000))
            self._later(rng.randrange(5_000, 30_000), self._misfortune)

    # --- what it says

    def _register(self) -> None:
        message = Register(
            agent_id=self.id,
            session=self.session,
            capabilities=(CapabilitySpec(name="do", concurrency=self.slots + 3 if self.id == "a1" else None),),
            slots=self.slots,
            lease=LEASE_MS / 1000,
        )
        self.world.send(SignedIn(message, self.world.now))

    def _beat(self) -> None:
        self._beat_now()
        self._later(1_000, self._beat)

    def _beat_now(self) -> None:
        message = Heartbeat(
            agent_id=self.id,
            session=self.session,
            holding=tuple(self.held),
            obeys=self.obeys,
            paused=self.paused,
            draining=self.leaving,
        )
        self.world.send(Beat(message, self.world.now))

    def _report(self, **parts: Any) -> None:
        self.world.send(Reported(Report(agent_id=self.id, session=self.session, **parts), self.world.now))

    # --- what it reads

    def _read(self) -> None:
        ledger = self.world.ledger
        if self.world.rng.random() < 0.02:
            self.cursor = 0  # the connection was lost: it reads from the beginning, and drops what it knows
        for entry, message in sorted(ledger.assignments.get(self.id, {}).items()):
            key = (message["task_id"], message["attempt"])
            lost = not self.world.calm and self.world.rng.random() < 0.01
            if entry > self.cursor and message["session"] == self.session and key not in self.past and not lost:
                self.held.setdefault(key, message)
            self.cursor = max(self.cursor, entry)
        for message in ledger.control.get(self.id, [])[self.heard :]:
            self.heard += 1
            missed = not self.world.calm and self.world.rng.random() < 0.02
            if message["session"] == self.session and not missed:
                self._instructed(message)
        self._fill()
        self._leave_when_empty()
        self._later(self.world.rng.choice((5, 20, 100, 300)), self._read)

    def _instructed(self, message: dict[str, Any]) -> None:
        key = (message.get("task_id", ""), message.get("attempt", 0))
        match message["type"]:
            case "reregister":
                self._register()
            case "superseded":
                self.stopped = True
            case "cancel" if message.get("confirm"):
                self._told_to_stop(key)
            case "cancel":
                self._drop(key)
            case "recall" if key in self.held and key not in self.running:
                self._drop(key)
                self._report(returned=(HandBack(task_id=key[0], attempt=key[1]),))
            case "pause" | "resume" | "drain" | "restart" as kind if message["number"] > self.obeys:
                self.obeys = message["number"]
                self.paused = {"pause": True, "resume": False}.get(kind, self.paused)
                self.leaving = kind in ("drain", "restart")
                if self.leaving and message["within"] is not None:
                    self._later(int(message["within"] * 1000), partial(self._give_up, self.obeys))
                self._beat_now()
            case _:
                pass

    def _told_to_stop(self, key: tuple[str, int]) -> None:
        """Stop what is cancelled, at once or after a while; some code never does."""
        rng, world = self.world.rng, self.world
        if key not in self.held or key in self.stopping:
            return
        self.stopping.add(key)
        begun = key in self.running
        if begun and rng.random() < 0.5:
            self._report(
                updates=(TaskUpdate(task_id=key[0], attempt=key[1], cancel=rng.choice(("delivered", "acknowledged"))),)
            )
        if not begun or world.calm or rng.random() < 0.8:
            self._later(rng.choice((0, 3, 900, 4_000)) if begun else 0, lambda: self._stop(key))

    def _stop(self, key: tuple[str, int]) -> None:
        if key in self.held:
            self._drop(key)
            result = TaskResult(task_id=key[0], attempt=key[1], status=TaskStatus.CANCELLED, duration=0.0)
            self._report(results=(result,))

    def _give_up(self, number: int) -> None:
        """Stop what runs at the deadline of a drain, unless another instruction came since."""
        if not self.leaving or self.obeys != number:
            return
        for key in list(self.running):
            self._drop(key)
            lost = {"task_id": key[0], "attempt": key[1], "status": "FAILED", "reason": "agent_lost"}
            self._report(results=(TaskResult.model_validate(lost),))

    def _leave_when_empty(self) -> None:
        """Hand back what has not begun; with nothing in its hands, sign out, and begin anew later."""
        if not self.leaving:
            return
        for key in [key for key in self.held if key not in self.running]:
            self._drop(key)
            self._report(returned=(HandBack(task_id=key[0], attempt=key[1]),))
        if not self.running:
            self.world.send(SignedOut(Unregister(agent_id=self.id, session=self.session), self.world.now))
            self._lives += 1
            self.world.at(self.world.rng.choice((10, 500, 8_000)), self._begin)

    def _drop(self, key: tuple[str, int]) -> None:
        self.held.pop(key, None)
        self.running.discard(key)
        self.waiting.discard(key)
        self.past.add(key)

    # --- what it does

    def _fill(self) -> None:
        while self.returning:
            key = self.returning[0]
            if key in self.waiting and not self._fits(key):
                return
            self.returning.pop(0)
            if key in self.waiting:
                self.waiting.discard(key)
                self._later(self.world.rng.choice((1, 50)), partial(self._end, key))
        if self.leaving:
            return
        unbegun = sorted((m["score"], key) for key, m in self.held.items() if key not in self.running)
        for _, key in unbegun:
            if not self._fits(key):
                break
            self._start(key)

    def _fits(self, key: tuple[str, int]) -> bool:
        used = sum(self.held[k]["spec"].get("slots", 1) for k in self.running - self.waiting)
        return bool(used + self.held[key]["spec"].get("slots", 1) <= self.slots)

    def _start(self, key: tuple[str, int]) -> None:
        rng, world = self.world.rng, self.world
        self.running.add(key)
        world.executions[key[0]] = world.executions.get(key[0], 0) + 1
        if rng.random() < 0.7:
            self._report(updates=(TaskUpdate(task_id=key[0], attempt=key[1]),))
        lasts = rng.choice((1, 3, 50, 2_000, 6_000))
        depth = 1 + self.held[key]["spec"].get("depth", 0)
        if depth <= DEEPEST and rng.random() < 0.15:
            self._later(min(lasts, 50), lambda: self._have_children(key, depth))
            return
        self._later(lasts, lambda: self._end(key))

    def _have_children(self, key: tuple[str, int], depth: int) -> None:
        if key not in self.running:
            return
        rng = self.world.rng
        children = [self.world.submit_child(*key, depth, number) for number in range(rng.choice((1, 1, 2, 5)))]
        if rng.random() < 0.3:
            self._end(key)  # perhaps before its children's submissions are read
            return
        self.waiting.add(key)
        self._report(updates=(TaskUpdate(task_id=key[0], attempt=key[1], waiting=True),))
        self._later(20, lambda: self._look(key, children))
        self._fill()

    def _look(self, key: tuple[str, int], children: list[str]) -> None:
        """Go on when the children have ended, or at times before."""
        if key not in self.waiting:
            return
        if set(children) <= self.world.ledger.ends.keys() or self.world.rng.random() < 0.005:
            self._report(updates=(TaskUpdate(task_id=key[0], attempt=key[1], waiting=False),))
            self.returning.append(key)
            self._fill()
        else:
            self._later(100, lambda: self._look(key, children))

    def _end(self, key: tuple[str, int]) -> None:
        if key not in self.running:
            return
        self._drop(key)
        well = self.world.rng.random() < 0.8
        result: dict[str, Any] = {"task_id": key[0], "attempt": key[1], "duration": 0.003}
        result |= (
            {"status": "COMPLETED", "output": f"{key[1]}/{self.id}/{self.session}"} if well else {"status": "FAILED"}
        )
        self._report(results=(TaskResult.model_validate(result),))
        self._fill()
