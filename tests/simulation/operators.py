"""Operators of a simulated pool: they pause, drain and change agents, and do things to tasks, to many at once too.

At the end they undo what would keep tasks from ever being run.
"""

from functools import partial
from typing import TYPE_CHECKING, Final

from bus.filters import TaskFilter
from bus.messages import (
    AgentCommand,
    CancelMatching,
    CancelTasks,
    DeleteSchedule,
    Explain,
    PauseSchedule,
    Plan,
    PurgeDead,
    Reprioritise,
    ReprioritiseMatching,
    RequeueDead,
    ResumeSchedule,
    TaskHeader,
    TimeOutTask,
    TriggerSchedule,
    UpdateAgent,
    WatchTasks,
)
from bus.overrides import OfferChange
from bus.states import TaskPriority
from dispatcher.core.events import Commanded

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.simulation import Simulation

OfOperators = (
    AgentCommand
    | CancelMatching
    | CancelTasks
    | DeleteSchedule
    | Explain
    | PauseSchedule
    | Plan
    | PurgeDead
    | Reprioritise
    | ReprioritiseMatching
    | RequeueDead
    | ResumeSchedule
    | TimeOutTask
    | TriggerSchedule
    | UpdateAgent
    | WatchTasks
)
STEERED: Final = ("skip", "replace")
"""Schedules that operators do things to; of the others each instant is accounted for."""
ANYBODY: Final = ("a0", "a1", "a2", "a3")
CHANGES: Final = (
    {"slots": 1},
    {"slots": 5},
    {"disable": ["make"]},
    {"enable": ["make"]},
    {"attributes": {"zone": "us"}},
    {"reset": True},
)


class Operators:
    """All operators together."""

    def __init__(self, world: "Simulation") -> None:
        self.world = world
        rng = world.rng
        deeds: tuple[Callable[[], None], ...] = (
            *(self._command_agent, self._command_agent, self._change_agent),
            *(self._requeue, self._requeue, self._requeue, self._purge, self._sweep, self._sweep),
            *(self._cancel, self._reprioritise, self._declare_overdue, self._ask),
            *(self._trigger, self._trigger, self._pause_schedule, self._delete_schedule),
        )
        for _ in range(rng.randrange(16)):
            world.at(rng.randrange(2_000, world.calm_at), rng.choice(deeds))
        if rng.random() < 0.2:  # zealous: what has failed is given one life after the other
            for _ in range(15):
                world.at(rng.randrange(2_000, world.calm_at), self._requeue)
        for name in STEERED:
            world.at(world.calm_at, partial(self._send, ResumeSchedule(id=name)))
        for agent_id in ANYBODY:
            world.at(world.calm_at, partial(self._change, agent_id, {"reset": True}))

    def _send(self, command: OfOperators) -> None:
        self.world.counts[type(command).__name__] += 1
        self.world.send(Commanded(command, self.world.now))

    # --- agents

    def _command_agent(self) -> None:
        rng = self.world.rng
        kind = rng.choice(("pause", "pause", "resume", "drain", "restart"))
        options = {"lasts": rng.choice((1, 20))} if kind == "pause" else {"deadline": rng.choice((None, 1, 5))}
        options |= {"forget": kind == "drain" and rng.random() < 0.5}
        command = {"type": kind, "agent_id": rng.choice(ANYBODY), **options}
        self._send(AgentCommand.model_validate(command))

    def _change_agent(self) -> None:
        self._change(self.world.rng.choice(ANYBODY), self.world.rng.choice(CHANGES))

    def _change(self, agent_id: str, change: object) -> None:
        self._send(UpdateAgent(agent_id=agent_id, change=OfferChange.model_validate(change)))

    # --- schedules

    def _trigger(self) -> None:
        """Ask for a task of a schedule: once, or by impatient clients twice."""
        rng = self.world.rng
        occasion = rng.choice((None, f"o{rng.randrange(1_000)}"))
        name = rng.choice(STEERED)
        for _ in range(1 if occasion is None else rng.choice((1, 2))):
            self._send(TriggerSchedule(id=name, occasion=occasion, reply_to="operator"))

    def _pause_schedule(self) -> None:
        rng = self.world.rng
        name = rng.choice(STEERED)
        self._send(PauseSchedule(id=name, reason="a freeze"))
        self.world.at(rng.choice((500, 8_000)), partial(self._send, ResumeSchedule(id=name)))

    def _delete_schedule(self) -> None:
        name = self.world.rng.choice(STEERED)
        self.world.clients.deleted.add(name)
        self._send(DeleteSchedule(id=name, reply_to="operator"))

    # --- tasks that have ended

    def _dead(self) -> tuple[str, ...]:
        """Return some dead letters, and some that may be none."""
        rng, ledger = self.world.rng, self.world.ledger
        dead = [one for one, guard in ledger.ends.items() if guard.startswith("FAILED") and rng.random() < 0.5]
        return tuple(dict.fromkeys((*dead, *self._some(3))))

    def _requeue(self) -> None:
        rng = self.world.rng
        if ids := self._dead():
            priority = rng.choice((None, None, TaskPriority.HIGH))
            self._send(RequeueDead(task_ids=ids, by=f"operator {rng.randrange(3)}", priority=priority))

    def _purge(self) -> None:
        if ids := self._dead():
            self._send(PurgeDead(task_ids=ids, reply_to="operator"))

    # --- tasks

    def _some(self, most: int) -> tuple[str, ...]:
        known = sorted(self.world.submitted)
        return tuple(self.world.rng.sample(known, min(most, len(known))))

    def _sweep(self) -> None:
        rng = self.world.rng
        where = rng.choice(
            ({"fairness_key": "batch"}, {"capability": "make"}, {"priority": rng.choice(list(TaskPriority))})
        )
        chosen = TaskFilter.model_validate(where)
        if rng.random() < 0.5:
            self._send(CancelMatching(where=chosen, reply_to="operator"))
        else:
            to = rng.choice(list(TaskPriority))
            self._send(ReprioritiseMatching(where=chosen, priority=to, reply_to="operator"))

    def _cancel(self) -> None:
        grace = self.world.rng.choice((None, 0.0, 1.0, 4.0))
        if ids := self._some(4):
            self._send(CancelTasks(task_ids=ids, grace=grace, reply_to="operator"))

    def _reprioritise(self) -> None:
        if ids := self._some(4):
            self._send(Reprioritise(task_ids=ids, priority=self.world.rng.choice(list(TaskPriority))))

    def _declare_overdue(self) -> None:
        """Declare overdue what runs, or ran when it was looked at."""
        rng = self.world.rng
        running = [
            (task_id, int(record.guard.split("/")[1]))
            for task_id, record in self.world.ledger.tasks.items()
            if record.guard.startswith("RUNNING")
        ]
        for task_id, attempt in running[:3]:
            meant = rng.choice((None, attempt, attempt + 1))
            self._send(TimeOutTask(task_id=task_id, attempt=meant, by="operator", reply_to="operator"))

    def _ask(self) -> None:
        """Ask for what changes nothing, or nearly so."""
        ids = self._some(3)
        for task_id in ids:
            self._send(Explain(task_id=task_id, reply_to="operator"))
        if ids:
            self._send(WatchTasks(task_ids=ids, reply_to="watcher"))
        self._send(Plan(task=TaskHeader(capability="do", slots=2), reply_to="operator"))
