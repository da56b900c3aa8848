"""Room that is kept free for tasks which take more than one slot, or resources.

A wide task needs several slots free at once. On a busy agent each slot that becomes free would go to the next task of
one slot, and the wide one would wait for ever. So the head of a class that found no room, though it could have it,
reserves the agent that lacks least of it: those behind it in the order get nothing of that agent, which becomes free
by and by. Those before it in the order still do, as everywhere. In batch systems this is the reservation of EASY
backfilling (Lifka, "The ANL/IBM SP scheduling system", 1995), without the look ahead in time: nobody knows here how
long a task runs.

Each class reserves one agent at most, and each agent is reserved for one class: the one whose head is first. A
reservation moves to another agent as soon as that lacks less. It holds no longer than the class is blocked.
"""

from dataclasses import dataclass
from random import Random
from typing import Final

from dispatcher.core.fleet import Fleet, RequirementClass
from dispatcher.core.model import AgentState
from dispatcher.core.terms import Requirement

LOOKED_AT: Final = 64
"""Most agents of which the one that lacks least is sought at a time: the next time it is among others."""


@dataclass(slots=True)
class Reservation:
    """One agent that is kept free, and the score of the task that it is for."""

    agent: AgentState
    bit: int
    score: int


class Reservations:
    """The reservations of one pool. False when there are none."""

    def __init__(self) -> None:
        self._held: dict[RequirementClass, Reservation] = {}

    def __bool__(self) -> bool:
        return bool(self._held)

    def of(self, cls: RequirementClass) -> AgentState | None:
        """Return the agent that is kept free for `cls`."""
        held = self._held.get(cls)
        return None if held is None else held.agent

    def barred(self, cls: RequirementClass, score: int) -> int:
        """Return the agents, as bits, that are kept free for others than `cls` which come before `score`."""
        bits = 0
        for owner, held in self._held.items():
            if owner is not cls and held.score < score:
                bits |= held.bit
        return bits

    def ask(self, fleet: Fleet, cls: RequirementClass, score: int, rng: Random) -> None:
        """Keep the agent free that lacks least for a task of `cls`, which found no room; plain tasks need none."""
        if cls.plain or not cls.mask:
            return
        taken = {held.agent.id: held for owner, held in self._held.items() if owner is not cls}
        best: tuple[float, AgentState] | None = None
        present = self._held.get(cls)
        if present is not None:
            best = (_lack(present.agent, cls.requirement), present.agent)
        for agent in fleet.levels.some(cls.mask, LOOKED_AT, rng):
            other = taken.get(agent.id)
            if not agent.open or (other is not None and other.score <= score):
                continue
            lack = _lack(agent, cls.requirement)
            if best is None or lack < best[0]:
                best = (lack, agent)
        if best is None:
            return
        agent = best[1]
        if present is not None and present.agent is not agent:
            self._free(fleet, cls)
        elif present is not None and present.score < score:
            fleet.levels.returned(agent)  # who was kept away may come before the one that it is kept for now
        for owner in [owner for owner, held in self._held.items() if owner is not cls and held.agent is agent]:
            del self._held[owner]
        self._held[cls] = Reservation(agent, 1 << agent.index, score)

    def give_up(self, fleet: Fleet, cls: RequirementClass) -> None:
        """Keep nothing free for `cls` any more: a task of it has found room, or a limit holds it up."""
        if cls in self._held:
            self._free(fleet, cls)

    def review(self, fleet: Fleet) -> None:
        """Give up what is of no use any more: nobody waits, or the agent is gone, changed or not open."""
        for cls, held in list(self._held.items()):
            agent = held.agent
            current = agent.index >= 0 and fleet.agents.get(agent.id) is agent and cls.mask & held.bit
            if not cls.waiting or not current or not agent.open:
                self._free(fleet, cls)

    def _free(self, fleet: Fleet, cls: RequirementClass) -> None:
        """End a reservation; who was kept away looks at the agent again."""
        agent = self._held.pop(cls).agent
        if agent.index >= 0:
            fleet.levels.returned(agent)


def _lack(agent: AgentState, requirement: Requirement) -> float:
    """Return what the agent lacks of the room for a task: of slots and each resource the missing share, added up."""
    lack = max(0, requirement.slots - agent.free) / requirement.slots
    for name, much in requirement.resources:
        left = agent.resources.get(name, 0) - agent.granted.get(name, 0)
        lack += max(0, much - left) / much
    return lack
