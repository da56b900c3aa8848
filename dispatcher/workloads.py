"""What each agent has to do and has done, as the leader publishes it once a second.

The scheduler counts; rates are made here, from what was counted a second ago, so that no task pays for them.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from math import exp
from typing import Final

from bus.records import AgentWorkload, CapabilityWorkload
from bus.states import AgentStatus, TaskStatus
from dispatcher.core.model import AgentState
from dispatcher.core.scheduler import Scheduler
from dispatcher.core.tally import Tally
from dispatcher.core.terms import MILLI

WINDOW_S: Final = 60.0
"""What happened so long ago counts a third of what happens now."""
SHARES: Final = (0.5, 0.9, 0.99)
AGENTS_AT_ONCE: Final = 50


@dataclass(slots=True)
class _Rate:
    """How often something that is counted happens, per second: an average that forgets."""

    began: float
    at: float
    count: int = 0
    value: float = 0.0

    def look(self, count: int, now: float) -> float:
        """Take a look at the count; a counter that has begun anew is no negative rate."""
        passed = now - self.at
        if passed > 0:
            recent = max(0, count - self.count) / passed
            window = min(WINDOW_S, now - self.began)
            self.value += (recent - self.value) * (1 - exp(-passed / window))
            self.at, self.count = now, count
        return self.value


class Workloads:
    """The workloads of one term of leadership."""

    def __init__(self) -> None:
        self._rates: dict[tuple[str, str, str], tuple[_Rate, _Rate]] = {}

    async def look(self, scheduler: Scheduler) -> Mapping[str, str]:
        """Return the JSON of each agent's `AgentWorkload`, by its id. Lets the loop turn between some of many."""
        board = scheduler.board
        now = board.now / 1000
        loads: dict[str, str] = {}
        kept: dict[tuple[str, str, str], tuple[_Rate, _Rate]] = {}
        for number, agent in enumerate(list(board.fleet.agents.values()), 1):
            loads[agent.id] = self._of(agent, now, kept).model_dump_json()
            if number % AGENTS_AT_ONCE == 0:
                await asyncio.sleep(0)
        self._rates = kept
        return loads

    def _of(
        self, agent: AgentState, now: float, kept: dict[tuple[str, str, str], tuple[_Rate, _Rate]]
    ) -> AgentWorkload:
        running: dict[str, int] = {}
        prefetched: dict[str, int] = {}
        for task in agent.tasks.values():
            counts = running if task.status is TaskStatus.RUNNING else prefetched
            name = task.terms.requirement.capability
            counts[name] = counts.get(name, 0) + 1
        names = sorted({*running, *prefetched, *agent.tallies})
        found: list[CapabilityWorkload] = []
        for name in names:
            key = (agent.id, agent.session, name)
            rates = kept[key] = self._rates.get(key) or (_Rate(now - 1, now - 1), _Rate(now - 1, now - 1))
            tally = agent.tallies.get(name) or Tally()
            found.append(_of_capability(name, tally, rates, now, running.get(name, 0), prefetched.get(name, 0)))
        status = agent.status
        if status in (AgentStatus.IDLE, AgentStatus.RUNNING):
            status = AgentStatus.RUNNING if agent.tasks else AgentStatus.IDLE
        return AgentWorkload(
            agent_id=agent.id,
            status=status,
            slots=agent.slots,
            running=sum(running.values()),
            assigned=sum(prefetched.values()),
            completed=agent.completed,
            failed=agent.failed,
            used=agent.used,
            waiting=sum(1 for task in agent.tasks.values() if task.current is not None and task.current.waiting),
            occupied=agent.occupied,
            granted={name: amount / MILLI for name, amount in agent.granted.items() if amount},
            rate=sum(one.rate for one in found),
            failure_rate=sum(one.failure_rate for one in found),
            start_latency=agent.latency_ms / 1000,
            capabilities=tuple(found),
        )


def _of_capability(
    name: str, tally: Tally, rates: tuple[_Rate, _Rate], now: float, running: int, prefetched: int
) -> CapabilityWorkload:
    p50, p90, p99 = (None if ms is None else ms / 1000 for ms in tally.quantiles(SHARES) or (None, None, None))
    return CapabilityWorkload(
        capability=name,
        running=running,
        prefetched=prefetched,
        completed=tally.completed,
        failed=tally.failed,
        rate=rates[0].look(tally.completed, now),
        failure_rate=rates[1].look(tally.failed, now),
        p50=p50,
        p90=p90,
        p99=p99,
    )
