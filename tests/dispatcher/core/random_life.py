"""A random life of a pool, drawn from one seed: everything that clients, operators, agents and time can do to it.

After each pass it is checked that who is paused or about to leave was given nothing in it.
"""

from random import Random
from typing import Any

from bus.messages import CapabilitySpec
from bus.overrides import OfferChange
from bus.states import AgentStatus, TaskPriority, TaskStatus
from dispatcher.core.events import Event, Found
from dispatcher.core.model import TaskState
from tests.dispatcher.core.world import World, placed, task_id

AGENTS = {"a": 1, "b": 3, "c": 8}
"""The agents and their slots."""
CAPABILITIES = ("do", "make", "nobody")


class RandomLife:
    """Feeds a world with events of every kind, as often as it is told."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self._rng = Random(seed)
        self._sessions = 0
        self._asked: list[str] = []
        """What the last pass wanted to know of the ledger."""

    def step(self) -> None:
        """Let one thing happen, or several in one pass."""
        rng = self._rng
        after = rng.choice((0, 0, 1, 40, 700, 2_600))
        events = [event for _ in range(rng.choice((0, 1, 1, 3))) if (event := self._event()) is not None]
        events += [Found(asked, self.world.stored.get(asked, "")) for asked in self._asked]
        decisions = self.world.step(*events, after=after)
        self._asked = decisions.inquiries
        fleet = self.world.scheduler.board.fleet
        for _, agent_id in placed(decisions):
            agent = fleet.agents[agent_id]
            assert agent.pause is None, f"{agent_id} is paused"
            assert agent.status is not AgentStatus.DRAINING, f"{agent_id} is to leave"
        if rng.random() < 0.3:
            self._asked += self.world.horizon().inquiries

    def rest(self) -> None:
        """Let the scheduler be answered, and do all that is due at once."""
        while self._asked or (self.world.scheduler.next_due or self.world.now + 1) <= self.world.now:
            answers = [Found(asked, self.world.stored.get(asked, "")) for asked in self._asked]
            self._asked = self.world.step(*answers).inquiries

    def _event(self) -> Event | None:
        rng = self._rng
        if rng.random() < 0.04:
            return self._of_many()
        kind = rng.choice((*[self._submit] * 12, *[self._report] * 18, *[self._agent] * 6, self._operator))
        return kind()

    def _of_many(self) -> Event | None:
        """Let an operator requeue, purge or cancel what is of a kind; now and then what is not."""
        rng, world = self._rng, self.world
        ended = [int(one.partition(".")[2]) for one, guard in world.stored.items() if guard.startswith("FAILED")]
        some = [*rng.sample(ended, min(len(ended), 3)), rng.randrange(1, 20)]
        match rng.randrange(5):
            case 0:
                return world.purge(*some)
            case 1:
                return world.cancel_matching(tags=("even",), priority=rng.choice(list(TaskPriority)))
            case 2:
                return world.reprioritise_matching(rng.choice(list(TaskPriority)), capability=rng.choice(CAPABILITIES))
            case _:
                return world.requeue(*some, priority=rng.choice((None, TaskPriority.HIGH)))

    def _submit(self) -> Event:
        rng = self._rng
        parent = self._some(TaskStatus.ASSIGNED, TaskStatus.RUNNING)
        if parent is not None and rng.random() < 0.15:
            depth = 1 if parent.kin is None else 1 + parent.kin.depth
            attempt = rng.choice((None, parent.attempt, parent.attempt, parent.attempt + 1))
            return self.world.task("do", parent=parent.id, parent_attempt=attempt, depth=depth)
        if rng.random() < 0.02:  # of one that is unknown, or has ended
            return self.world.task("make", parent=task_id(rng.randrange(1, 60)), depth=1)
        return self.world.task(
            rng.choice(CAPABILITIES),
            priority=rng.choice(list(TaskPriority)),
            delay=rng.choice((0, 0, 0, 2)),
            max_attempts=rng.choice((1, 2, 3)),
            run_timeout=rng.choice((None, 1)),
            queue_timeout=rng.choice((None, 5)),
            requires=rng.choice(([], ["zone == eu"])),
            prefers=rng.choice(([], ["zone == us"])),
            reply_to="client",
            tags=rng.choice(([], ["even"])),
        )

    def _report(self) -> Event | None:  # noqa: PLR0911 - one for each that may be said
        task = self._some(TaskStatus.ASSIGNED, TaskStatus.RUNNING)
        if task is None:
            return None
        world, number = self.world, int(task.id.partition(".")[2])
        if task.cancellation is not None and self._rng.random() < 0.7:
            step = self._rng.choice(("delivered", "acknowledged", None))
            if step is not None and task.status is TaskStatus.RUNNING:
                return world.started(number, cancel=step)
            return world.stopped(number, abandoned=self._rng.random() < 0.2)
        if self._rng.random() < 0.05:
            return world.time_out(number, attempt=self._rng.choice((None, task.attempt, task.attempt + 1)))
        match self._rng.randrange(6):
            case 0:
                return world.started(number, progress=0.5, waiting=self._rng.choice((None, None, True, False)))
            case 1:
                return world.failed(number, retryable=self._rng.random() < 0.8)
            case 2:
                return world.returned(number)
            case 3:
                return world.cancel(number, reason="why not")
            case _:
                return world.ended(number, duration=self._rng.choice((0.001, 0.1, 30.0)))

    def _agent(self) -> Event | None:
        rng, world = self._rng, self.world
        agent_id = rng.choice(list(AGENTS))
        known = world.scheduler.board.fleet.agents.get(agent_id)
        if known is None or rng.random() < 0.1:
            self._sessions += 1
            specs = [
                CapabilitySpec(name=name, attributes={"zone": rng.choice(("eu", "us"))}) for name in ("do", "make")
            ]
            session = f"s{self._sessions}"
            return world.sign_in(agent_id, *specs, session=session, slots=AGENTS[agent_id])
        if rng.random() < 0.05:
            return world.sign_out(agent_id, forget=rng.random() < 0.3)
        holding = () if rng.random() < 0.2 else None
        told = 0 if known.request is None else known.request.number
        heeds: dict[str, Any] = {"obeys": rng.choice((None, 0, told, told)), "draining": rng.random() < 0.05}
        return world.beat(agent_id, holding=holding, lag=rng.choice((0.0, 0.0, 0.0, 3.0)), **heeds)

    def _operator(self) -> Event:
        rng, world = self._rng, self.world
        agent_id = rng.choice(list(AGENTS))
        match rng.randrange(8):
            case 0:
                return world.command("drain", agent_id, deadline=rng.choice((None, 1)), forget=rng.random() < 0.5)
            case 1:
                return world.command("restart", agent_id)
            case 2:
                return world.update_agent(OfferChange(disable=("make",), slots=rng.choice((1, 2))), agent_id)
            case 3 | 4:
                return world.command("pause", agent_id, lasts=rng.choice((0.5, 5)))
            case _:
                return world.command("resume", agent_id)

    def _some(self, *statuses: TaskStatus) -> TaskState | None:
        board = self.world.scheduler.board
        found = [task for task in board.tasks.values() if task.status in statuses and task.stored]
        return self._rng.choice(found) if found else None
