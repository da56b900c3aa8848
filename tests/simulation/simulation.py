"""A pool in virtual time: clients, operators, agents, leaders and the network between them, drawn from one seed.

Nothing here is concurrent: whatever happens is an entry of one agenda. The scheduler is the real one. This module owns
the agenda, the network to the leader, and how a run begins and ends; who does what is in `leader`, `agent`, `clients`
and `operators`, what is stored in `ledger`, what must be true after each pass in `invariants` and `consistency`.

After a while no faults happen any more, and everything must come to its end. Then everybody falls silent, and the
leader alone lives on until it has forgotten whatever it may forget.
"""

from collections import Counter
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import Final

from dispatcher.core.config import SchedulerConfig
from dispatcher.core.events import Beat, Commanded, Reported, SignedIn, SignedOut, Submitted
from tests.simulation import consistency
from tests.simulation.agent import Agent
from tests.simulation.clients import Clients
from tests.simulation.leader import Leader
from tests.simulation.ledger import MemoryLedger
from tests.simulation.limits import Rates
from tests.simulation.operators import Operators

START: Final = 1_800_000_000_000
CALM_AT: Final = 45_000
"""No fault happens later than so many ms after the start."""
SLOTS: Final = {"a0": 3, "a1": 2, "a2": 4, "a3": 2}
"""The agents and their slots."""
SILENCE_MS: Final = 600_000
"""The steps in which time goes on when everybody is silent."""

Inbound = Submitted | Commanded | Reported | Beat | SignedIn | SignedOut


class Simulation:
    """One run. `run` returns when everything has ended, and fails if it does not."""

    def __init__(self, seed: int, *, tasks: int | None = None) -> None:
        self.rng = rng = Random(seed)
        self.now = START
        self.calm_at = CALM_AT
        self.counts: Counter[str] = Counter()
        """What has happened, for whoever wants to know whether enough does."""
        self.config = _policy(rng)
        self.rates = Rates(rng)
        self.ledger = MemoryLedger(tell=self._tell, now=START)
        self.submitted: set[str] = set()
        self.parents: dict[str, str] = {}
        """Parent of each child."""
        self.begun: dict[tuple[int, int], tuple[str, str]] = {}
        """Agent and session that began an attempt, by the number of its task's record and its own."""
        self.executions: Counter[str] = Counter()
        self.over = False
        """Agents say and do nothing more."""
        self._agenda: list[tuple[int, int, Callable[[], object]]] = []
        self._order = count()
        self.leader = Leader(self)
        self.sessions = count(1)
        self.agents: dict[str, list[Agent]] = {}
        for agent_id, slots in SLOTS.items():
            self.hire(agent_id, slots)
        self.clients = Clients(self, tasks if tasks is not None else rng.choice((4, 6, 8, 10, 30)))
        self.operators = Operators(self)

    def hire(self, agent_id: str, slots: int) -> None:
        """Let a process begin as this agent, whoever else does."""
        self.agents.setdefault(agent_id, []).append(Agent(self, agent_id, slots=slots))

    # --- the agenda

    @property
    def calm(self) -> bool:
        """True when no more faults happen."""
        return self.now >= START + CALM_AT

    def may(self, probability: float) -> bool:
        """Draw whether a fault happens."""
        return not self.calm and self.rng.random() < probability

    def at(self, delay: int, what: Callable[[], object]) -> None:
        """Do `what` in `delay` ms."""
        heappush(self._agenda, (self.now + delay, next(self._order), what))

    def run(self, limit_ms: int = 3_600_000) -> None:
        """Let time pass until every task has ended, and then until nothing is left of them."""
        while not self.calm or self.unended() or self.leader.busy or self.clients.schedules_go_on():
            assert self._agenda, "nothing will ever happen again"
            self.now, _, what = heappop(self._agenda)
            assert self.now < START + limit_ms, f"still live: {self.unended()}"
            what()
        self.clients.check_schedules()
        self.counts["errors that end a task"] += consistency.check_retries(self.ledger)
        self.over = True
        for _ in range(3 + self.config.forget_agent_ms // SILENCE_MS):
            self.now += SILENCE_MS
            self.leader.settle()
        consistency.check_nothing_is_left(self.leader.scheduler.board, self.ledger)

    def unended(self) -> dict[str, str]:
        """Return the tasks that have not ended, with their guards; of one that is on its way that is empty."""
        rest = (self.submitted | self.ledger.tasks.keys()) - self.ledger.ends.keys() - self.ledger.purged
        return {one: record.guard if (record := self.ledger.tasks.get(one)) else "" for one in rest}

    # --- the network

    def send(self, event: Inbound, *, again: bool = False) -> bool:
        """Write a message to its stream: it may be lost, or come twice, or long after its sender has gone.

        Returns whether it is there, as the server would tell the sender.

        A submission is repeated by who made it. An agent's report goes with its process, and is never lost otherwise
        where nobody would ever notice: what heartbeats tell is made up for, that an attempt waits they do not tell.
        """
        waits = isinstance(event, Reported) and any(update.waiting is not None for update in event.message.updates)
        if not waits and self.may(0.01):
            self.counts["lost messages"] += 1
            if isinstance(event, Submitted):
                self.at(self.rng.randrange(5_000), lambda: self.send(event))
            return False
        self.leader.receive(event)
        if not again and self.may(0.02):
            self.counts["repeated messages"] += 1
            final = isinstance(event, Reported) and not event.message.updates
            late = self.rng.choice((0, 0, 9_000)) if final else 0
            self.at(late, lambda: self.send(event, again=True))
        return True

    def _tell(self, agent_id: str) -> None:
        for agent in self.agents.get(agent_id, ()):
            agent.wake()


def _policy(rng: Random) -> SchedulerConfig:
    """Draw a policy: often the least of what one pass may do, so that everything is done in several."""
    return SchedulerConfig(
        fairness_weights={"k": rng.choice((1.0, 3.0))},
        prefetch_ms=rng.choice((0.0, 20.0, 500.0)),
        prefetch_tasks=rng.choice((2, 1_000)),
        cancel_grace_ms=rng.choice((500, 5_000)),
        breaker_failures=rng.choice((0, 2, 20)),
        recall_after_ms=100,
        blocked_patience_ms=rng.choice((2_000, 10_000)),
        fail_fast_grace_ms=rng.choice((0, 3_000)),
        # Nobody heeds these here, and what counts must be right all the same.
        max_pending=rng.choice((None, 1, 10)),
        capability_max_pending=rng.choice(({}, {"do": 5}, {"make": 1})),
        forget_agent_ms=rng.choice((12_000, 3_600_000)),
        placements_per_pass=rng.choice((1, 3, 2_000)),
        timers_per_pass=rng.choice((3, 500)),
        sorted_per_pass=rng.choice((1, 1_000)),
        children_per_pass=rng.choice((1, 500)),
        schedule_looks_per_pass=rng.choice((3, 500)),
    )
