"""Limits in a simulated pool: no rate is ever exceeded, and no bound of concurrency, whoever leads.

Rates are measured by the assignments that are stored, by their own instants: over any window of time there are no more
than the burst and what the rate gives in that time. All windows are looked at, which is no way to keep a rate, and a
good one to check it.
"""

from collections import defaultdict, deque
from itertools import chain
from random import Random
from typing import Any, Final

from bus.limits import interval_ms
from bus.messages import TaskHeader
from dispatcher.core.board import Board
from dispatcher.core.decisions import Handover
from dispatcher.core.model import Attempt, TaskState

LIMITED_AGENT: Final = "a3"
LOOKED_BACK: Final = 40
SHARED: Final = "l"
"""The key whose bound tasks state themselves, always the same."""


class Rates:
    """The rates of one run, and all starts that count for them."""

    def __init__(self, rng: Random) -> None:
        self.of_agent: dict[str, str] = {LIMITED_AGENT: "5/s"} if rng.random() < 0.5 else {}
        self.of_capability: dict[str, str] = {"do": "20/s"} if rng.random() < 0.3 else {}
        """Stated by all agents, so that it is in force whoever is there."""
        self.burst = rng.choice((1, 3))
        self._starts: defaultdict[str, deque[int]] = defaultdict(lambda: deque(maxlen=LOOKED_BACK))
        self.seen = 0

    def limit(self) -> dict[str, Any]:
        """Return the limit that tasks of the key `r` share."""
        return {"key": "r", "rate": "2/s", "burst": self.burst}

    def check(self, starts: list[tuple[Handover, TaskHeader]]) -> None:
        """Take all assignments there are; look at those that are new."""
        for handover, header in starts[self.seen :]:
            for limit in header.limits:
                if limit.rate is not None:
                    self._start(f"key {limit.key}", limit.rate, limit.burst, handover.at)
            for kind, rates, who in (
                ("agent", self.of_agent, handover.agent_id),
                ("capability", self.of_capability, header.capability),
            ):
                if who in rates:
                    self._start(f"{kind} {who}", rates[who], 1, handover.at)
        self.seen = len(starts)

    def _start(self, key: str, rate: str, burst: int, at: int) -> None:
        starts, interval = self._starts[key], interval_ms(rate)
        starts.append(at)
        assert list(starts) == sorted(starts), f"{key}: time went backwards"
        for number, first in enumerate(starts):
            many, most = len(starts) - number, burst + (at - first) / interval
            assert many <= most + 1e-6, f"{key} is {rate}: {many} starts within {at - first} ms"


def in_hands(board: Board) -> list[tuple[TaskState, Attempt]]:
    """Return the tasks that agents have."""
    return [
        (task, task.current)
        for agent in board.fleet.agents.values()
        for task in agent.tasks.values()
        if task.current is not None
    ]


class Bounds:
    """The bounds of concurrency of one leader: nobody new is let in above them.

    Some may be above them all the same: whoever had begun before the bound was stated, or before this leader came, and
    an attempt that goes on after its children have ended.
    """

    def __init__(self, board: Board) -> None:
        self._stated: dict[str, int] = {}
        self._excused: dict[str, set[tuple[str, int]]] = defaultdict(set)
        self._waited: set[tuple[str, int]] = set()
        self._excuse(SHARED, board)

    def _excuse(self, key: str, board: Board) -> None:
        self._excused[key] |= {(task.id, task.attempt) for task, _ in in_hands(board)}

    def check(self, board: Board) -> None:
        """Look at who is in agents' hands."""
        gates = chain.from_iterable(cls.gates for cls in board.fleet.classes.values())
        stated = {gate.key: gate.concurrency for gate in gates if gate.concurrency is not None}
        for key, most in stated.items():
            if key != SHARED and self._stated.get(key) != most:
                self._excuse(key, board)
        self._stated = stated
        counted: defaultdict[str, set[tuple[str, int]]] = defaultdict(set)
        for task, current in in_hands(board):
            if current.waiting:
                self._waited.add((task.id, task.attempt))
            for gate in current.gates:
                counted[gate.key].add((task.id, task.attempt))
        for key, most in stated.items():
            fresh = counted[key] - self._excused[key] - self._waited
            assert len(fresh) <= most, f"{key}: {fresh} are more than {most}"
