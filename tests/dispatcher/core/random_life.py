"""A random life of a pool, drawn from one seed: everything that clients, operators, agents and time can do to it.

After each pass it is checked that who is paused or about to leave was given nothing in it.
"""

from random import Random
from typing import Any

from bus.messages import CapabilitySpec
from bus.overrides import OfferChange
from bus.states import AgentStatus, TaskPriority, TaskStatus
from dispatcher.core.events import Event
from dispatcher.core.model import TaskState
from tests.dispatcher.core.world import World, placed

AGENTS = {"a": 1, "b": 3, "c": 8}
"""The agents and their slots."""
CAPABILITIES = ("do", "make", "nobody")


class RandomLife:
    """Feeds a world with events of every kind, as often as it is told."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self._rng = Random(seed)
        self._sessions = 0

    def step(self) -> None:
        """Let one thing happen, or several in one pass."""
        rng = self._rng
        after = rng.choice((0, 0, 1, 40, 700, 2_600))
        events = [event for _ in range(rng.choice((0, 1, 1, 3))) if (event := self._event()) is not None]
        fleet = self.world.scheduler.board.fleet
        for _, agent_id in placed(self.world.step(*events, after=after)):
            agent = fleet.agents[agent_id]
            assert agent.pause is None, f"{agent_id} is paused"
            assert agent.status is not AgentStatus.DRAINING, f"{agent_id} is to leave"
        if rng.random() < 0.3:
            self.world.horizon()

    def _event(self) -> Event | None:
        rng = self._rng
        kind = rng.choice((*[self._submit] * 12, *[self._report] * 18, *[self._agent] * 6, self._operator))
        return kind()

    def _submit(self) -> Event:
        rng = self._rng
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
        )

    def _report(self) -> Event | None:
        task = self._some(TaskStatus.ASSIGNED, TaskStatus.RUNNING)
        if task is None:
            return None
        world, number = self.world, int(task.id.partition(".")[2])
        match self._rng.randrange(6):
            case 0:
                return world.started(number, progress=0.5)
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
            return world.sign_out(agent_id)
        holding = () if rng.random() < 0.2 else None
        told = 0 if known.request is None else known.request.number
        heeds: dict[str, Any] = {"obeys": rng.choice((None, 0, told, told)), "draining": rng.random() < 0.05}
        return world.beat(agent_id, holding=holding, lag=rng.choice((0.0, 0.0, 0.0, 3.0)), **heeds)

    def _operator(self) -> Event:
        rng, world = self._rng, self.world
        agent_id = rng.choice(list(AGENTS))
        match rng.randrange(8):
            case 0:
                return world.command("drain", agent_id, deadline=rng.choice((None, 1)))
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
