"""Who could do what: the agents that meet what tasks ask of an agent, kept up to date as agents come, go and change.

Tasks that differ only in the limits they count for have this in common. To match a requirement with every agent of a
large fleet takes milliseconds, and a limit of its own for each of a thousand tenants is nothing unusual.
"""

from collections.abc import Iterable, Mapping

from bus.requirements import Value
from dispatcher.core.match import accepts, facts_asked, find_capability, preferences_met
from dispatcher.core.model import AgentState
from dispatcher.core.terms import Requirement


class Eligible:
    """The agents that could run tasks with one requirement, those apart that are shut off after failures.

    Agents are bits of integers, by their `index`.
    """

    __slots__ = ("asked", "facts", "mask", "met", "preferred", "requirement")

    def __init__(
        self, requirement: Requirement, facts: Mapping[str, Value], asked: frozenset[str], agents: Iterable[AgentState]
    ) -> None:
        self.requirement = requirement
        self.facts = facts
        """What the tasks have in common of what agents ask of tasks."""
        self.asked = asked
        """What agents asked of tasks when it was made: the tasks may differ in everything else."""
        self.mask = 0
        self.preferred: list[tuple[float, int]] = []
        """Agents by the weight of the preferences that they meet, the greatest first."""
        self.met: dict[int, int] = {}
        """Agents by which of the preferences they meet, as bits in the order of the preferences."""
        for agent in agents:
            self.match(agent)

    def match(self, agent: AgentState) -> None:
        """Count `agent` among the eligible, if it is."""
        requirement = self.requirement
        capability = find_capability(agent, requirement)
        if capability is None or capability.name in agent.shut or not agent.could_fit(requirement):
            return
        if agent.accepts and not (facts_asked(agent.accepts) <= self.asked and accepts(agent.accepts, self.facts)):
            return
        bit = 1 << agent.index
        self.mask |= bit
        met = preferences_met(agent, capability, requirement)
        if met:
            self.met[met] = self.met.get(met, 0) | bit
            weight = sum(p.weight for n, p in enumerate(requirement.preferences) if met >> n & 1)
            by_weight = dict(self.preferred)
            by_weight[weight] = by_weight.get(weight, 0) | bit
            self.preferred = sorted(by_weight.items(), reverse=True)

    def drop(self, bit: int) -> None:
        """Count an agent among the eligible no more."""
        self.mask &= ~bit
        self.preferred = [(weight, mask & ~bit) for weight, mask in self.preferred if mask & ~bit]
        self.met = {met: mask & ~bit for met, mask in self.met.items() if mask & ~bit}

    def met_by(self, agent: AgentState) -> int:
        """Return which of the preferences the agent meets, as bits in their order."""
        bit = 1 << agent.index
        return next((met for met, mask in self.met.items() if mask & bit), 0)
