"""Which agents could take a task, and which of them has most room: sets of agents as bits of integers.

Each agent is one bit. Each requirement class knows its eligible agents as one integer, each level of free capacity
its agents as another; the best agent for a class is in the highest level whose bits meet the class's. Both are kept up
to date when an agent comes, goes or changes, so a placement costs a few word-wise ANDs: 10,000 agents are 1.3 kB of
bits, and the backlog plays no part.
"""

from random import Random

from bus.requirement_text import format_clause
from bus.states import AgentHealth
from dispatcher.core.config import SchedulerConfig
from dispatcher.core.match import find_capability, preference_weight
from dispatcher.core.model import AgentState, Requirement
from dispatcher.core.order import Line

EXACT_LEVELS = 8
LEVELS = EXACT_LEVELS + 16
"""Level 0: all slots taken, but room for short work ahead. 1-8: so many free slots. Above: powers of two."""

KEPT_CLASSES = 1_024
"""So many classes are kept though nobody may wait in them: to make one anew is to match every agent."""

UNKNOWN_LOAD_MS = 1_000.0
"""What a task of unknown duration counts for: enough that nothing is queued up behind it."""


class RequirementClass:
    """All waiting tasks with one requirement, and the agents that meet it."""

    __slots__ = ("line", "mask", "preferred", "queued_score", "requirement", "seq")

    def __init__(self, requirement: Requirement, seq: int) -> None:
        self.requirement = requirement
        self.seq = seq
        self.line = Line()
        self.mask = 0
        self.preferred: list[tuple[float, int]] = []
        self.queued_score: int | None = None
        """Score under which it stands in the scheduler's heap of classes; None when it does not."""


class Fleet:
    """Agents and classes of one pool. `gained` collects the bits of agents that have more room than before."""

    def __init__(self, config: SchedulerConfig) -> None:
        self._config = config
        self.agents: dict[str, AgentState] = {}
        self.classes: dict[Requirement, RequirementClass] = {}
        self.durations: dict[str, float] = {}
        """Moving average of the run time of each capability, in milliseconds."""
        self.gained = 0
        self._seq = 0
        self._sweep_at = KEPT_CLASSES
        self._levels = [0] * (LEVELS + 1)
        self._by_index: list[AgentState | None] = []
        self._free_indexes: list[int] = []

    # --- agents

    def add(self, agent: AgentState) -> None:
        """Let `agent` be considered from the next placement on."""
        if self._free_indexes:
            agent.index = self._free_indexes.pop()
            self._by_index[agent.index] = agent
        else:
            agent.index = len(self._by_index)
            self._by_index.append(agent)
        self.agents[agent.id] = agent
        for cls in self.classes.values():
            self._match(cls, agent)
        self.refresh(agent)

    def remove(self, agent: AgentState) -> None:
        """Forget `agent`; it must hold no task."""
        del self.agents[agent.id]
        bit = 1 << agent.index
        if agent.level >= 0:
            self._levels[agent.level] ^= bit
            agent.level = -1
        for cls in self.classes.values():
            cls.mask &= ~bit
            cls.preferred = [(w, m & ~bit) for w, m in cls.preferred if m & ~bit]
        self._by_index[agent.index] = None
        self._free_indexes.append(agent.index)
        agent.index = -1

    def refresh(self, agent: AgentState) -> None:
        """Put `agent` into the level of its present room: after each change of its tasks, status or health."""
        level = self._level(agent)
        if level == agent.level:
            return
        bit = 1 << agent.index
        if agent.level >= 0:
            self._levels[agent.level] ^= bit
        if level >= 0:
            self._levels[level] |= bit
        if level > agent.level:
            self.gained |= bit
        agent.level = level

    def _level(self, agent: AgentState) -> int:
        if not agent.open:
            return -1
        free = agent.slots - len(agent.tasks)
        if free > EXACT_LEVELS:
            return min(EXACT_LEVELS + free.bit_length() - 3, LEVELS)
        if free > 0:
            return free
        config = self._config
        if agent.load_ms < config.prefetch_ms * agent.slots and -free < config.prefetch_tasks:
            return 0
        return -1

    # --- classes

    def class_of(self, requirement: Requirement) -> RequirementClass:
        """Return the class of `requirement`, making it if it is new."""
        cls = self.classes.get(requirement)
        if cls is None:
            if len(self.classes) >= self._sweep_at:
                self._sweep()
            self._seq += 1
            cls = RequirementClass(requirement, self._seq)
            self.classes[requirement] = cls
            for agent in self.agents.values():
                self._match(cls, agent)
        return cls

    def _sweep(self) -> None:
        """Forget classes in which nobody waits: requirements may be as many as tasks."""
        self.classes = {r: cls for r, cls in self.classes.items() if len(cls.line) or cls.queued_score is not None}
        self._sweep_at = max(KEPT_CLASSES, 2 * len(self.classes))

    def _match(self, cls: RequirementClass, agent: AgentState) -> None:
        capability = find_capability(agent, cls.requirement)
        bit = 1 << agent.index
        if capability is None:
            return
        cls.mask |= bit
        weight = preference_weight(agent, capability, cls.requirement)
        if weight > 0:
            by_weight = dict(cls.preferred)
            by_weight[weight] = by_weight.get(weight, 0) | bit
            cls.preferred = sorted(by_weight.items(), reverse=True)

    def choose(self, cls: RequirementClass, estimate_ms: float | None, rng: Random) -> AgentState | None:
        """Return the best agent with room for a task of `cls`, or None.

        Best is most free slots, then the greatest weight of met preferences; ties fall by `rng`. An agent without a
        free slot is chosen only for a task known to be short.
        """
        short = estimate_ms is not None and estimate_ms <= self._config.prefetch_ms
        mask = cls.mask
        for level in range(LEVELS, -1 if short else 0, -1):
            found = self._levels[level]
            if found and (found := found & mask):
                for _, preferred in cls.preferred:
                    if found & preferred:
                        found &= preferred
                        break
                return self._pick(found, rng)
        return None

    def _pick(self, bits: int, rng: Random) -> AgentState:
        width = bits.bit_length()
        if width > 1 and bits & (bits - 1):
            start = int(rng.random() * width)
            upper = bits >> start
            index = ((upper & -upper).bit_length() - 1 + start) if upper else (bits & -bits).bit_length() - 1
        else:
            index = width - 1
        agent = self._by_index[index]
        assert agent is not None, "a bit without an agent"  # noqa: S101 - an invariant, not a check of input
        return agent

    # --- durations

    def learn(self, capability: str, run_ms: float) -> None:
        """Take the run time of a finished task into the capability's moving average."""
        known = self.durations.get(capability)
        self.durations[capability] = run_ms if known is None else known + 0.1 * (run_ms - known)

    def estimate(self, capability: str, given_ms: float | None) -> float | None:
        """Return the expected run time: measured, else as given with the task, else None."""
        return self.durations.get(capability, given_ms)

    # --- words

    def why_waiting(self, cls: RequirementClass) -> str:
        """Say in one line why the tasks of `cls` have no agent yet."""
        requirement = cls.requirement
        if cls.mask:
            eligible = [agent for agent in self.agents.values() if cls.mask >> agent.index & 1]
            shut = [agent for agent in eligible if not agent.open]
            lost = sum(1 for agent in shut if agent.health is AgentHealth.LOST)
            busy = len(eligible) - len(shut)
            words = f"{len(eligible)} agents can do it: {busy} busy, {len(shut) - lost} not taking work, {lost} lost"
            return f"{words}; {len(cls.line)} tasks wait for the same"
        offering = [a for a in self.agents.values() if any(c.name == requirement.capability for c in a.capabilities)]
        if not offering:
            return f"no agent offers {requirement.capability!r} ({len(self.agents)} agents known)"
        versions = sorted({c.version for a in offering for c in a.capabilities if c.name == requirement.capability})
        return (
            f"{len(offering)} agents offer {requirement.capability!r} in version {', '.join(versions)}, "
            f"but none meets {_describe(requirement)}"
        )


def _describe(requirement: Requirement) -> str:
    parts = [f"version {requirement.version}"] if requirement.version else []
    parts += [format_clause(clause) for clause in requirement.conditions]
    return " and ".join(parts) or "the requirement"
