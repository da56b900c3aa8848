"""What one pass of the scheduler works on: the state, and the notes of what has changed.

`Board.close` turns the notes into decisions: one `TaskChange` per touched task, from the guard the ledger has to the
present one, however many transitions lie between.
"""

from collections import deque
from collections.abc import Iterable
from random import Random
from typing import TYPE_CHECKING

from pydantic_core import to_json

from bus.ids import DEFAULT_POOL, Pool
from bus.messages import Control
from bus.states import AgentStatus, agent_may_become
from dispatcher.core.bounds import Bounds
from dispatcher.core.config import SchedulerConfig
from dispatcher.core.decisions import (
    AgentChange,
    AgentTransition,
    Decisions,
    Handover,
    Instruct,
    Note,
    NoteKind,
    Place,
    TaskChange,
    TaskTransition,
)
from dispatcher.core.fleet import Fleet, RequirementClass
from dispatcher.core.kin import Family
from dispatcher.core.limits import Closed, Limits
from dispatcher.core.match import find_capability
from dispatcher.core.model import AgentState, TaskState
from dispatcher.core.order import Order
from dispatcher.core.record import agent_record, encode_run, place_of
from dispatcher.core.reservations import Reservations
from dispatcher.core.schedules import Schedules
from dispatcher.core.sticky import Sticky
from dispatcher.core.terms import TermsBook
from dispatcher.core.timers import TimerKind, Timers

if TYPE_CHECKING:
    from dispatcher.core.sweeps import Sweep


class Board:
    """State of one pool, and the draft of the pass under way."""

    def __init__(self, config: SchedulerConfig, seed: int, pool: Pool = DEFAULT_POOL) -> None:
        self.config = config
        self.pool = pool
        self.rng = Random(seed)
        self.now = 0
        self.horizon = 0
        self.tasks: dict[str, TaskState] = {}
        """Live tasks, and until the pass is closed those that have ended in it: see `live`."""
        self.terms = TermsBook(config)
        self.fleet = Fleet(config)
        self.order = Order(config)
        self.reservations = Reservations()
        self.limits = Limits()
        self.family = Family()
        self.bounds = Bounds(config)
        self.clock_timers = Timers(self._means_something)
        self.horizon_timers = Timers(self._means_something)
        self.sticky = Sticky()
        self.hasty: dict[str, None] = {}
        """Tasks that wait and are to fail fast."""
        self.review: list[str] = []
        """Those of them that are still to be looked at, see `fail_fast`."""
        self.review_due = False
        """A timer will look at them."""
        self.began = 0
        """When this leader began; 0: it has not."""
        self.tombstones: dict[str, tuple[str, str, int]] = {}
        """Reason and author of cancels that found no task, and when they came, by the task's id."""
        self.sweeps: dict[str, Sweep] = {}
        """Commands that speak of all tasks of a kind, by their number; kept for a while when they are through."""
        self.sweeps_until = 0
        """Instant of the latest of them."""
        self.sweeps_begun = 0
        self.purged: dict[str, str] = {}
        """Dead letters that this pass deletes: the guard that the ledger has, by the task's id."""
        self.unsorted: deque[str] = deque()
        """Tasks that may wait in classes which do not tell apart what agents ask of tasks by now."""
        self.schedules = Schedules()
        self.loading = False
        """Not all of the ledger's live tasks are here yet: what is decided of all of them has to wait."""
        self.ended: set[str] = set()
        """Tasks that have ended while it was loaded: a page that was read before is not to bring them back."""
        self._lives = 0
        self.draft = Decisions()
        self._touched: dict[str, TaskState] = {}
        self._touched_agents: dict[str, AgentState | None] = {}

    def enqueue(self, task: TaskState) -> None:
        """Let a PENDING task wait for its turn."""
        fleet, order = self.fleet, self.order
        if len(fleet.classes) >= fleet.sweep_at:
            for cls in fleet.sweep():
                order.forget(cls)
        order.push(task, fleet.class_of(task.terms))

    def _means_something(self, kind: TimerKind, subject: str, mark: int) -> bool:
        """Tell whether a timer may still do anything when it rings; in doubt it may."""
        match kind:
            case TimerKind.READY | TimerKind.RUN_TIMEOUT | TimerKind.PROGRESS | TimerKind.CANCEL:
                task = self.tasks.get(subject)
                return task is not None and task.attempt == mark
            case TimerKind.EXPIRE:
                return subject in self.tasks
            case TimerKind.LEASE:
                agent = self.fleet.agents.get(subject)
                return agent is not None and agent.life == mark
            case TimerKind.SCHEDULE:
                schedule = self.schedules.by_id.get(subject)
                return schedule is not None and schedule.mark == mark
            case _:
                return True

    def reopen(self, classes: Iterable[RequirementClass]) -> None:
        """Let blocked classes compete again: what held them has changed."""
        for cls in classes:
            if cls.blocked:
                self.order.open(cls)

    def await_limit(self, closed: Closed, cls: RequirementClass) -> None:
        """Let `cls` wait until a limit lets tasks pass again."""
        if self.limits.wait(closed, cls):
            self.clock_timers.set(closed.until or 0, TimerKind.LIMIT, closed.key)

    def throttle(self, agent: AgentState) -> None:
        """Give `agent` nothing until its own rate allows it."""
        closed = self.limits.closed(agent.gates, self.now)
        if closed is not None and closed.until is not None:
            agent.throttled = True
            self.fleet.levels.refresh(agent)
            self.clock_timers.set(closed.until, TimerKind.THROTTLE, agent.id)

    def new_life(self) -> int:
        """Return a number for a life of an agent: its lease timer carries it, and those of earlier lives another."""
        self._lives += 1
        return self._lives

    def watch(self, agent: AgentState) -> None:
        """Let `recall` look at `agent` in a while, for it has work that it may not begin at once."""
        if not agent.watched:
            agent.watched = True
            self.clock_timers.set(self.now + self.config.recall_after_ms, TimerKind.RECALL, agent.id)

    def bury(self, task_id: str, reason: str, by: str) -> None:
        """Remember a cancel that found no task; the next leader shall know it, too."""
        self.tombstones[task_id] = reason, by, self.now
        said = to_json({"reason": reason, "by": by, "at": self.now})
        self.draft.notes.append(Note(NoteKind.TOMBSTONE, task_id, said))

    def unbury(self, task_id: str) -> tuple[str, str, int] | None:
        """Forget a tombstone; return the reason, the author and the instant of its cancel, None if there is none."""
        found = self.tombstones.pop(task_id, None)
        if found is not None:
            self.draft.notes.append(Note(NoteKind.TOMBSTONE, task_id, None))
        return found

    def add_agent(self, agent: AgentState) -> None:
        """Let `agent` be considered; if it asks of tasks what nobody has asked, those that wait are sorted anew.

        That takes its time, `sort_out`; until then it is given only those that are.
        """
        asked = self.fleet.asked
        self.fleet.add(agent)
        self._count_running()
        if self.fleet.asked != asked:
            self.unsorted = deque(task.id for task in self.tasks.values() if task.line is not None)

    def sort_out(self) -> None:
        """Sort some of the tasks anew that wait in classes in which they differ in what agents ask of tasks."""
        for _ in range(min(len(self.unsorted), self.config.sorted_per_pass)):
            task = self.tasks.get(self.unsorted.popleft())
            if task is not None and task.line is not None and not self.fleet.sorted_out(task.line.cls):
                self.order.leave(task)
                self.enqueue(task)

    def _count_running(self) -> None:
        """Let what runs already count for the limits that its capability has got."""
        fleet, names = self.fleet, self.fleet.newly_limited
        if not names:
            return
        fleet.newly_limited = set()
        for task in (task for agent in fleet.agents.values() for task in agent.tasks.values()):
            capability, current = task.terms.requirement.capability, task.current
            if current is not None and not current.waiting and capability in names:
                counted = {gate.key for gate in current.gates}
                more = tuple(gate for gate in fleet.gates_of(capability) if gate.key not in counted)
                current.gates += more
                self.limits.hold(more)

    def live(self, task_id: str) -> TaskState | None:
        """Return a task that has not ended, not even in this pass; None otherwise."""
        task = self.tasks.get(task_id)
        return None if task is None or task.status.terminal else task

    def touch(self, task: TaskState) -> None:
        """Note that the record of `task` is to be written."""
        self._touched[task.id] = task

    def touch_agent(self, agent: AgentState) -> None:
        """Note that the record of `agent` is to be written."""
        self._touched_agents[agent.id] = agent

    def forget_agent(self, agent: AgentState) -> None:
        """Remove an agent without tasks from the fleet and the ledger."""
        self.fleet.remove(agent)
        self._touched_agents[agent.id] = None

    def drop(self, task: TaskState) -> None:
        """Forget a task that the ledger had already; nothing is written."""
        self.family.leave(task)
        self._forget(task.id)
        self._touched.pop(task.id, None)

    def set_agent(self, agent: AgentState, status: AgentStatus, reason: str | None = None) -> None:
        """Change the agent's status by the table; the only place that does."""
        if status is agent.status and reason == agent.reason:
            return
        assert agent_may_become(agent.status, status), f"{agent.id}: {agent.status} -> {status}"  # noqa: S101
        tell = status is not agent.status and {status, agent.status} != {
            AgentStatus.IDLE,
            AgentStatus.RUNNING,
        }
        agent.status, agent.reason = status, reason
        if tell:
            self.touch_agent(agent)
            self.announce(agent)

    def announce(self, agent: AgentState) -> None:
        """Tell the events of the agent's present status and health."""
        self.draft.agent_transitions.append(
            AgentTransition(agent.id, agent.status, agent.health, agent.reason),
        )

    def instruct(self, agent_id: str, message: Control) -> None:
        """Send a message to an agent's control stream."""
        self.draft.instructions.append(Instruct(agent_id, message))

    def tell(self, task: TaskState, *, reason: str | None = None, chunk: str | None = None) -> None:
        """Tell the events of the task's present status; `chunk` is a piece of its output."""
        current = task.current
        capability = task.terms.requirement.capability
        if current is None:
            told = TaskTransition(task.id, task.status, task.attempt, None, reason, None, None, capability)
        else:
            agent_id = None if current.agent is None else current.agent.id
            progress, note = current.progress, current.note
            told = TaskTransition(
                task.id, task.status, task.attempt, agent_id, reason, progress, note, capability, chunk
            )
        self.draft.transitions.append(told)

    def close(self) -> Decisions:
        """End the pass: return its decisions and start a new draft."""
        if not self.loading:
            self.bounds.settle(self)
        draft, self.draft = self.draft, Decisions()
        for task in self._touched.values():
            draft.changes.append(self._change(task))
        for task_id, guard in self.purged.items():
            draft.changes.append(TaskChange(task_id, guard, "", Place.GONE, 0, b""))
        self.purged = {}
        draft.agents = [
            AgentChange(agent_id, None if agent is None else agent_record(agent))
            for agent_id, agent in self._touched_agents.items()
        ]
        for key, arrival in self.limits.moved(self.now):
            draft.notes.append(Note(NoteKind.RATE, key, None if arrival is None else to_json(arrival)))
        self._touched, self._touched_agents = {}, {}
        return draft

    def _change(self, task: TaskState) -> TaskChange:
        before, after, current, kin = task.stored, task.guard, task.current, task.kin
        agent = None if current is None else current.agent
        # What the ledger has of it before: nothing, or that it waits, or that an agent has an attempt of it.
        held = before.startswith(("ASSIGNED", "RUNNING"))
        release = before.split("/", 3)[2] if held and before[0] == "A" and before != after else None
        terminal = task.status.terminal
        another = not held or before.split("/", 2)[1] != str(task.attempt)
        handover = self._handover(task, agent) if agent is not None and another and not terminal else None
        place, score = place_of(task, self.now)
        change = TaskChange(
            task.id,
            before,
            after,
            place,
            score,
            encode_run(task),
            task.spec,
            task.output,
            release,
            handover,
            None if before or kin is None else kin.parent,
            kin is not None and self._last_of_kin(task),
            self.bounds.scopes(task.terms.requirement.capability),
        )
        task.stored, task.spec, task.output = after, None, None
        if terminal:
            self._forget(task.id)
        return change

    def _last_of_kin(self, task: TaskState) -> bool:
        """Tell whether the list of children that the change of `task` concerns is kept only for the retention now.

        Or, if the task is given a new life, whether there is one that is to be kept as long as others again.
        """
        kin = task.kin
        if not task.stored:
            return kin is not None and kin.parent is not None and self.live(kin.parent) is None
        return kin is not None and kin.children > 0 and (task.status.terminal or task.stored.startswith("FAILED"))

    def _forget(self, task_id: str) -> None:
        self.tasks.pop(task_id, None)
        if self.loading:
            self.ended.add(task_id)
        if self.hasty:
            self.hasty.pop(task_id, None)
        if self.sticky.wanted:
            self.sticky.wanted.pop(task_id, None)

    def _handover(self, task: TaskState, agent: AgentState) -> Handover:
        version = None
        if agent.ambiguous:
            capability = find_capability(agent, task.terms.requirement)
            version = None if capability is None else capability.version
        return Handover(agent.id, agent.session, task.attempt, task.score, self.now, version)
