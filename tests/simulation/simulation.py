"""A pool in virtual time: clients, agents, leaders and the network between them, all drawn from one seed.

Nothing here is concurrent: whatever happens is an entry of one agenda. The leader is the real scheduler. Agents read
their streams, run tasks for a while, report and beat, as the runtime does; they crash, freeze and wake as zombies.
Every message takes its time, and some of a reader's entries are seen late or twice. Leaders die between a decision and
its commit, and after it.
"""

from collections.abc import Callable
from functools import partial
from heapq import heappop, heappush
from random import Random
from typing import Any

from bus.ids import DEFAULT_POOL, scheduled_task_id
from bus.messages import (
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
)
from bus.states import TaskPriority
from dispatcher.core.config import SchedulerConfig
from dispatcher.core.decisions import NoteKind
from dispatcher.core.events import Beat, Commanded, Duplicate, Event, Horizon, Reported, SignedIn, Submitted
from dispatcher.core.record import restore_agent
from dispatcher.core.scheduler import Scheduler
from tests.simulation.ledger import MemoryLedger

START = 1_800_000_000_000
CALM_AT = 60_000
"""No fault happens later than so many ms after the start."""
LEASE_MS = 5_000
SCHEDULES: dict[str, dict[str, Any]] = {
    "all": {"every": 1.5, "overlap": "queue", "missed": "all"},
    "skip": {"every": 2, "overlap": "skip"},
    "replace": {"every": 3, "overlap": "replace", "missed": "skip"},
}
"""What recurs for the first half of a minute; of the first no instant may be lost."""
FROM_AGENTS = (Reported, Beat, SignedIn)


class Simulation:
    """One run. `run` returns when everything has ended, and fails if it does not."""

    def __init__(self, seed: int, *, tasks: int = 25, agents: int = 4) -> None:
        self.rng = Random(seed)
        self.now = START
        self.ledger = MemoryLedger()
        self.submitted: set[str] = set()
        self.executions: dict[str, int] = {}
        self._agenda: list[tuple[int, int, Callable[[], None]]] = []
        self._sequence = 0
        self._inbound: list[tuple[int, Event]] = []
        self._wakes = 0
        self.schedules: dict[str, int] = {}
        """Of each schedule, until when it recurs."""
        self.config = SchedulerConfig(timers_per_pass=self.rng.choice((3, 500)))
        self.scheduler = self._leader()
        self.agents = [Agent(self, f"a{n}", slots=2 + n % 3) for n in range(agents)]
        for name in self.rng.sample(sorted(SCHEDULES), self.rng.randrange(3)):
            self.at(self.rng.randrange(3_000), partial(self._put, name))
        for number in range(tasks):
            self.at(self.rng.randrange(30_000), partial(self._submit, number))
        for _ in range(self.rng.randrange(4)):
            self.at(self.rng.randrange(CALM_AT), self._crash)

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
            self._check()
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
            used = sum(task.terms.requirement.slots for task in agent.tasks.values())
            assert agent.used == used, f"{agent.id}: slots leaked"
        for task_id, guard in self.ledger.ends.items():
            assert self.ledger.tasks[task_id].guard == guard, f"{task_id}: a terminal state changed"

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

    def _put(self, name: str) -> None:
        self.schedules[name] = START + 30_000
        task = {"capability": "do", "max_attempts": 8}
        spec = {"id": name, "until": START + 30_000, "task": task, **SCHEDULES[name]}
        self.send(Commanded(Command.model_validate({"type": "put_schedule", "schedule": spec}).root, self.now))

    def _cancel(self, task_id: str) -> None:
        self.send(Commanded(Command(CancelTasks(task_ids=(task_id,), reason="why not")).root, self.now))

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
        keep = self.rng.randrange(3) if self.rng.random() < 0.1 else 0  # what this read does not bring
        taken = self._inbound[: len(self._inbound) - keep]
        unread = [at for at, event in self._inbound[len(taken) :] if isinstance(event, FROM_AGENTS)]
        horizon = min([self.now, *unread]) - 1
        events = [_dated(event, at) for at, event in taken]
        decisions = self.scheduler.step([*events, Horizon(horizon)], self.now)
        if not self.calm and self.rng.random() < 0.004:
            self.ledger.commit_in_part(decisions, self.rng.randrange(len(decisions.changes) + 1))
            self._crash()  # decided, and not stored as a whole: the entries are still there
            return
        del self._inbound[: len(taken)]
        known = self.ledger.commit(decisions)
        if known:
            self.ledger.commit(self.scheduler.step([Duplicate(task_id) for task_id in known], self.now))
        due = self.scheduler.next_due
        if not self._wakes and due is not None:
            self.wake(max(0, min(due - self.now, 250)))

    def _crash(self) -> None:
        """Let another leader take over after a while."""
        self.scheduler = self._leader()
        self.wake(self.rng.choice((0, 3_000)))

    def _leader(self) -> Scheduler:
        scheduler = Scheduler(self.config, seed=self.rng.randrange(1_000))
        fleet = [restore_agent(record, self.now) for record in self.ledger.agents.values()]
        scheduler.load(fleet, self.ledger.live(), self.now, self.ledger.noted())
        return scheduler


def _dated(event: Event, at: int) -> Event:
    """Return the event with the time of its entry."""
    if isinstance(event, Submitted | Commanded | Reported | Beat | SignedIn):
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
        self.cursor = self.heard = 0
        self.past: set[tuple[str, int]] = set()
        self.stopped = False
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
            capabilities=(CapabilitySpec(name="do"),),
            slots=self.slots,
            lease=LEASE_MS / 1000,
        )
        self.world.send(SignedIn(message, self.world.now))

    def _beat(self) -> None:
        message = Heartbeat(agent_id=self.id, session=self.session, holding=tuple(self.held))
        self.world.send(Beat(message, self.world.now))
        self._later(1_000, self._beat)

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
            if message["session"] == self.session:
                self._instructed(message)
        self._fill()
        self._later(self.world.rng.choice((5, 20, 100)), self._read)

    def _instructed(self, message: dict[str, Any]) -> None:
        key = (message.get("task_id", ""), message.get("attempt", 0))
        match message["type"]:
            case "reregister":
                self._register()
            case "superseded":
                self.stopped = True
            case "cancel":
                self._drop(key)
            case "recall" if key in self.held and key not in self.running:
                self._drop(key)
                self._report(returned=(HandBack(task_id=key[0], attempt=key[1]),))
            case _:
                pass

    def _drop(self, key: tuple[str, int]) -> None:
        self.held.pop(key, None)
        self.running.discard(key)
        self.past.add(key)

    # --- what it does

    def _fill(self) -> None:
        waiting = sorted((m["score"], key) for key, m in self.held.items() if key not in self.running)
        for _, key in waiting:
            used = sum(self.held[k]["spec"].get("slots", 1) for k in self.running)
            if used + self.held[key]["spec"].get("slots", 1) > self.slots:
                break
            self._start(key)

    def _start(self, key: tuple[str, int]) -> None:
        rng, world = self.world.rng, self.world
        self.running.add(key)
        world.executions[key[0]] = world.executions.get(key[0], 0) + 1
        if rng.random() < 0.7:
            self._report(updates=(TaskUpdate(task_id=key[0], attempt=key[1]),))
        self._later(rng.choice((1, 3, 50, 2_000, 6_000)), lambda: self._end(key))

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
