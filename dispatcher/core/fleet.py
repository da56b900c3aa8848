"""Which agents could take a task, and which of them has most room: sets of agents as bits of integers.

Each agent is one bit. Each requirement class knows its eligible agents as one integer, each level of free capacity
its agents as another; the best agent for a class is in the highest level whose bits meet the class's. Both are kept up
to date when an agent comes, goes or changes, so a placement costs a few word-wise ANDs: 10,000 agents are 1.3 kB of
bits, and the backlog plays no part.
"""

from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import TYPE_CHECKING, Final

from bus.requirements import Value
from bus.states import AgentHealth, TaskPriority
from dispatcher.core.config import SchedulerConfig
from dispatcher.core.eligibility import Eligible
from dispatcher.core.limits import Gate, rate_gate
from dispatcher.core.match import facts_asked
from dispatcher.core.model import AgentState
from dispatcher.core.terms import Requirement, Terms

if TYPE_CHECKING:
    from dispatcher.core.order import Line

EXACT_LEVELS: Final = 8
LEVELS: Final = EXACT_LEVELS + 16
"""Level 0: all slots taken, but room for short work ahead. 1-8: so many free slots. Above: powers of two."""

_HIGH_TO_LOW: Final = tuple(range(LEVELS, 0, -1))

KEPT_CLASSES: Final = 1_024
"""So many classes are kept though nobody may wait in them: to make one anew is to match every agent."""

UNKNOWN_LOAD_MS: Final = 1_000.0
"""What a task of unknown duration counts for: enough that nothing is queued up behind it."""

FEW: Final = 4
"""Up to so many agents of equal room are all compared by their record; of more two are drawn at random, which is nearly
as good: the "power of two choices" (Mitzenmacher, 2001)."""


ClassKey = tuple[Requirement, tuple[tuple[str, str], ...] | None]


class RequirementClass:
    """All waiting tasks with one requirement and the same limits, and the agents that meet it."""

    __slots__ = (
        "blocked",
        "by_priority",
        "candidates",
        "eligible",
        "gates",
        "parked",
        "plain",
        "requirement",
        "waiting",
    )

    def __init__(self, requirement: Requirement, eligible: Eligible) -> None:
        self.requirement = requirement
        self.eligible = eligible
        self.gates = requirement.gates
        """All limits that its tasks count for, those of their capability included."""
        self.plain = requirement.slots == 1 and not requirement.resources
        """Its tasks take one slot and nothing else."""
        self.candidates = -1
        """Agents that may have the room for one that is not plain: all but those that were looked at and have not."""
        self.waiting = 0
        self.by_priority = dict.fromkeys(TaskPriority, 0)
        self.blocked = False
        """No agent has room for its head; see `dispatcher.core.order`, whose these last two are."""
        self.parked: list[Line] = []

    @property
    def mask(self) -> int:
        """The eligible agents, as bits."""
        return self.eligible.mask


class Fleet:
    """Agents and classes of one pool. `gained` collects the bits of agents that have more room than before."""

    def __init__(self, config: SchedulerConfig) -> None:
        self._config = config
        self.agents: dict[str, AgentState] = {}
        self.classes: dict[ClassKey, RequirementClass] = {}
        self._eligible: dict[tuple[str, object], Eligible] = {}
        """By what is asked of an agent, and the facts of the tasks."""
        self.asked: frozenset[str] = frozenset()
        """Facts of tasks that any agent asks for: tasks that differ in them are of different classes."""
        self.durations: dict[str, float] = {}
        """Moving average of the run time of each capability, in milliseconds."""
        self.gained = 0
        self.loosened: list[RequirementClass] = []
        """Classes whose limits have changed since the last pass."""
        self.sweep_at = KEPT_CLASSES
        """Number of classes at which those that nobody waits in are to be forgotten."""
        self._narrowed: dict[RequirementClass, None] = {}
        """Classes for which not all of their agents are candidates."""
        self.newly_limited: set[str] = set()
        """Capabilities that have got a limit: what runs of them is to be counted, see `Board.add_agent`."""
        self.stated = False
        """An agent has come or gone that states how many tasks may wait, see `bounds`."""
        self._capability_gates: dict[str, tuple[Gate, ...]] = {}
        self.lost = 0
        """Agents that are lost, as bits."""
        self.shut: Counter[str] = Counter()
        """How many agents are shut off, by the capability."""
        self._levels = [0] * (LEVELS + 1)
        self._eased: dict[AgentState, None] = {}
        """Agents that have given room back since they were put into their levels."""
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
        self.shut.update(agent.shut)
        self.asked |= facts_asked(agent.accepts)
        for eligible in self._eligible.values():
            eligible.match(agent)
        self._limit(agent)
        self.refresh(agent)

    def remove(self, agent: AgentState) -> None:
        """Forget `agent`; it must hold no task."""
        del self.agents[agent.id]
        self.shut.subtract(agent.shut)
        bit = 1 << agent.index
        if agent.level >= 0:
            self._levels[agent.level] ^= bit
            agent.level = -1
        self.lost &= ~bit
        for eligible in self._eligible.values():
            eligible.drop(bit)
        self._limit(agent)
        self._by_index[agent.index] = None
        self._free_indexes.append(agent.index)
        agent.index = -1
        self._eased.pop(agent, None)

    def ease(self, agent: AgentState) -> None:
        """Do what `refresh` does before anybody is placed again: once, however many tasks of `agent` end in a pass."""
        self._eased[agent] = None

    def settle(self) -> None:
        """Put agents that have given room back into their levels: before those are looked at."""
        if self._eased:
            eased, self._eased = self._eased, {}
            for agent in eased:
                self.refresh(agent)

    def refresh(self, agent: AgentState) -> None:
        """Put `agent` into the level of its present room: after each change of its tasks, status or health."""
        level = self._level(agent)
        bit = 1 << agent.index
        if (agent.health is AgentHealth.LOST) != bool(self.lost & bit):
            self.lost ^= bit
        before, agent.seen_free = agent.seen_free, agent.free
        if level == agent.level:
            if level > EXACT_LEVELS and agent.free > before:
                self.gained |= bit  # more room within a level that is a range
            return
        if agent.level >= 0:
            self._levels[agent.level] ^= bit
        if level >= 0:
            self._levels[level] |= bit
        if level > agent.level:
            self.gained |= bit
        agent.level = level

    def returned(self, agent: AgentState) -> None:
        """Let classes that wait for a resource look at `agent` again, whose level may be the same as before."""
        if agent.level >= 0:
            self.gained |= 1 << agent.index

    def _level(self, agent: AgentState) -> int:
        if not agent.open:
            return -1
        free = agent.free
        if free > 0:
            return _level_of(free)
        config = self._config
        if agent.load_ms < config.prefetch_ms * agent.slots and -free < config.prefetch_tasks:
            return 0
        return -1

    def exclude(self, agent: AgentState, capability: str) -> None:
        """Let `agent` not be eligible for `capability`."""
        if capability not in agent.shut:
            agent.shut.add(capability)
            self.shut[capability] += 1
        bit = 1 << agent.index
        for eligible in self._eligible.values():
            if eligible.requirement.capability == capability:
                eligible.drop(bit)

    def admit(self, agent: AgentState, capability: str) -> None:
        """Let `agent` be eligible for `capability` again."""
        if capability in agent.shut:
            agent.shut.discard(capability)
            self.shut[capability] -= 1
        for eligible in self._eligible.values():
            if eligible.requirement.capability == capability:
                eligible.match(agent)
        self.returned(agent)

    # --- classes

    def class_of(self, terms: Terms) -> RequirementClass:
        """Return the class of tasks with these terms, making it if it is new."""
        requirement = terms.requirement
        facts: dict[str, Value] = {}
        said: tuple[tuple[str, str], ...] | None = None
        if self.asked:
            facts = {name: value for name, value in terms.facts.items() if name in self.asked}
            said = tuple((name, repr(value)) for name, value in facts.items())
        cls = self.classes.get((requirement, said))
        if cls is None:
            eligible = self._eligible_for(requirement, facts, said)
            cls = self.classes[requirement, said] = RequirementClass(requirement, eligible)
            cls.gates = (*requirement.gates, *self._capability_gates.get(requirement.capability, ()))
        return cls

    def sorted_out(self, cls: RequirementClass) -> bool:
        """Tell whether the tasks of `cls` have in common all that agents ask of tasks by now."""
        return cls.eligible.asked == self.asked

    def _eligible_for(self, requirement: Requirement, facts: dict[str, Value], said: object) -> Eligible:
        key = requirement.agent_key or requirement.key, said
        found = self._eligible.get(key)
        if found is None or found.asked != self.asked:
            found = self._eligible[key] = Eligible(requirement, facts, self.asked, self.agents.values())
        return found

    def _limit(self, changed: AgentState) -> None:
        """Let the limits of `changed`'s capabilities be the strictest that any agent states."""
        self.stated |= any(spec.max_pending is not None for spec in changed.capabilities)
        for name in dict.fromkeys(spec.name for spec in changed.capabilities if spec.rate or spec.concurrency):
            specs = [spec for agent in self.agents.values() for spec in agent.capabilities if spec.name == name]
            rates = [rate_gate(f"capability {name}", spec.rate) for spec in specs if spec.rate]
            most = min((spec.concurrency for spec in specs if spec.concurrency), default=None)
            slowest = max((gate.interval or 0.0 for gate in rates), default=None)
            gate = Gate(f"capability {name}", slowest, 0.0, most)
            if not self._capability_gates.get(name):
                self.newly_limited.add(name)
            self._capability_gates[name] = () if slowest is None and most is None else (gate,)
            for cls in self.classes.values():
                if cls.requirement.capability == name:
                    cls.gates = (*cls.requirement.gates, *self._capability_gates[name])
                    self.loosened.append(cls)

    def gates_of(self, capability: str) -> tuple[Gate, ...]:
        """Return the limits that agents state for `capability`."""
        return self._capability_gates.get(capability, ())

    def sweep(self) -> list[RequirementClass]:
        """Forget classes in which nobody waits, and return them: requirements may be as many as tasks."""
        idle = {key: cls for key, cls in self.classes.items() if not cls.waiting}
        for key, cls in idle.items():
            del self.classes[key]
            self._narrowed.pop(cls, None)
        used = {id(cls.eligible) for cls in self.classes.values()}
        self._eligible = {key: eligible for key, eligible in self._eligible.items() if id(eligible) in used}
        self.sweep_at = max(KEPT_CLASSES, 2 * len(self.classes))
        return list(idle.values())

    # --- choosing

    @property
    def full(self) -> bool:
        """True when no agent at all takes anything."""
        return not any(self._levels)

    def choose(
        self, cls: RequirementClass, estimate_ms: float | None, rng: Random, *, spared: int = 0, barred: int = 0
    ) -> AgentState | None:
        """Return the best agent with room for a task of `cls`, or None.

        `spared` are agents that get no work ahead of their slots, because something more urgent waits for those;
        `barred` ones get nothing, because their room is reserved.

        Best is most free slots, then the greatest weight of met preferences, then success and latency of late; ties
        fall by `rng`. An agent without a free slot is chosen only for a task of one slot that is known to be short.
        """
        mask = cls.mask & ~barred if barred else cls.mask
        if not cls.plain:
            return self._choose_fitting(cls, mask, rng)
        short = estimate_ms is not None and estimate_ms <= self._config.prefetch_ms
        levels = self._levels
        for level in _HIGH_TO_LOW:
            if levels[level] and (found := levels[level] & mask):
                break
        else:
            found = levels[0] & ~spared & mask if short else 0
            if not found:
                return None
        for _, preferred in cls.eligible.preferred:
            if found & preferred:
                found &= preferred
                break
        return self._pick(found, rng)

    def _choose_fitting(self, cls: RequirementClass, mask: int, rng: Random) -> AgentState | None:
        """Return the best agent that has the slots and the resources now, of a few that have, or None.

        An agent that has not is not looked at again until it has gained room: however many tasks ask, it is looked at
        once.
        """
        requirement = cls.requirement
        for level in range(LEVELS, _level_of(requirement.slots) - 1, -1):
            found = self._levels[level] & mask & cls.candidates
            if not found:
                continue
            for preferred in (*(agents for _, agents in cls.eligible.preferred), found):
                fit = self._fitting(cls, found & preferred, rng)
                if fit:
                    return self._pick(fit, rng)
                found &= ~preferred
        return None

    def _fitting(self, cls: RequirementClass, bits: int, rng: Random) -> int:
        """Return a few of `bits` whose agents have the room now; those that have not are no candidates any more."""
        fit = misfits = 0
        for agent in self.some(bits, bits.bit_count(), rng):
            bit = 1 << agent.index
            if not agent.fits(cls.requirement):
                misfits |= bit
                continue
            fit |= bit
            if fit.bit_count() >= FEW:
                break
        if misfits:
            cls.candidates &= ~misfits
            self._narrowed[cls] = None
        return fit

    def consider(self, gained: int) -> None:
        """Let agents that have gained room be candidates again."""
        for cls in self._narrowed:
            cls.candidates |= gained

    def some(self, bits: int, most: int, rng: Random) -> Iterator[AgentState]:
        """Yield the agents of `bits`, from a random one on, and not more than `most`."""
        if not bits:
            return
        start = int(rng.random() * bits.bit_length())
        upper = (bits >> start) << start
        for part in (upper, bits ^ upper):
            for agent in self.agents_of(part):
                if not most:
                    return
                most -= 1
                yield agent

    def eligible(self, cls: RequirementClass) -> Iterator[AgentState]:
        """Yield the agents that could run tasks of `cls`, and are not shut off after failures."""
        return self.agents_of(cls.mask)

    def with_room(self, cls: RequirementClass) -> int:
        """Return the agents that have a free slot for a task of `cls` now, or as many as it takes, as bits."""
        self.settle()
        found = 0
        for level in range(_level_of(cls.requirement.slots), LEVELS + 1):
            found |= self._levels[level]
        found &= cls.mask
        if cls.plain:
            return found
        return sum(1 << agent.index for agent in self.agents_of(found & cls.candidates) if agent.fits(cls.requirement))

    def agents_of(self, bits: int) -> Iterator[AgentState]:
        """Yield the agents of `bits`."""
        while bits:
            low = bits & -bits
            yield self._at(low)
            bits ^= low

    def _pick(self, bits: int, rng: Random) -> AgentState:
        """Return the agent with the best record among `bits`: of all if they are few, else of two that are drawn."""
        if not bits & (bits - 1):
            return self._at(bits)
        few = bits.bit_count() <= FEW
        width = bits.bit_length()
        best = self._at(self._draw(bits, width, rng))
        for other in self.agents_of(bits) if few else (self._at(self._draw(bits, width, rng)),):
            if other.standing > best.standing:
                best = other
        return best

    @staticmethod
    def _draw(bits: int, width: int, rng: Random) -> int:
        """Return one of `bits`: the first at or above a random place, around the end if there is none."""
        start = int(rng.random() * width)
        upper = bits >> start
        return (upper & -upper) << start if upper else bits & -bits

    def _at(self, bit: int) -> AgentState:
        agent = self._by_index[bit.bit_length() - 1]
        assert agent is not None, "a bit without an agent"  # noqa: S101 - an invariant, not a check of input
        return agent

    # --- durations

    def learn(self, capability: str, run_ms: float) -> None:
        """Take the run time of a finished task into the capability's moving average."""
        known = self.durations.get(capability)
        self.durations[capability] = run_ms if known is None else known + 0.1 * (run_ms - known)

    def estimate(self, capability: str, given_ms: float | None) -> float | None:
        """Return the expected run time: the measured one or the one given with the task, whichever is longer."""
        known = self.durations.get(capability)
        if known is None or given_ms is None:
            return given_ms if known is None else known
        return max(known, given_ms)


def _level_of(free: int) -> int:
    return free if free <= EXACT_LEVELS else min(EXACT_LEVELS + free.bit_length() - 3, LEVELS)
