"""Which agents could take a task, and which of them is to have it: classes of tasks that ask for the same.

Each requirement class knows its eligible agents as the bits of one integer, `levels` those of each level of free
capacity; the best agent for a class is in the highest level whose bits meet the class's. Both are kept up to date when
an agent comes, goes or changes, so the backlog plays no part in what a placement costs.
"""

from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import TYPE_CHECKING, Final

from bus.requirements import Value
from bus.states import TaskPriority
from dispatcher.core.config import SchedulerConfig
from dispatcher.core.eligibility import Eligible
from dispatcher.core.levels import FEW, Levels
from dispatcher.core.limits import Gate, rate_gate
from dispatcher.core.match import facts_asked
from dispatcher.core.model import AgentState
from dispatcher.core.terms import Requirement, Terms

if TYPE_CHECKING:
    from dispatcher.core.lines import Line

KEPT_CLASSES: Final = 1_024
"""So many classes are kept though nobody may wait in them: to make one anew is to match every agent."""

UNKNOWN_LOAD_MS: Final = 1_000.0
"""What a task of unknown duration counts for: enough that nothing is queued up behind it."""

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
    """Agents and classes of one pool."""

    def __init__(self, config: SchedulerConfig) -> None:
        self._config = config
        self.levels = Levels(config)
        self.agents: dict[str, AgentState] = {}
        self.classes: dict[ClassKey, RequirementClass] = {}
        self._eligible: dict[tuple[str, object], Eligible] = {}
        """By what is asked of an agent, and the facts of the tasks."""
        self.asked: frozenset[str] = frozenset()
        """Facts of tasks that any agent asks for: tasks that differ in them are of different classes."""
        self.durations: dict[str, float] = {}
        """Moving average of the run time of each capability, in milliseconds."""
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
        self.shut: Counter[str] = Counter()
        """How many agents are shut off, by the capability."""

    # --- agents

    def add(self, agent: AgentState) -> None:
        """Let `agent` be considered from the next placement on."""
        self.levels.enter(agent)
        self.agents[agent.id] = agent
        self.shut.update(agent.shut)
        self.asked |= facts_asked(agent.accepts)
        for eligible in self._eligible.values():
            eligible.match(agent)
        self._limit(agent)
        self.levels.refresh(agent)

    def remove(self, agent: AgentState) -> None:
        """Forget `agent`; it must hold no task."""
        del self.agents[agent.id]
        self.shut.subtract(agent.shut)
        bit = 1 << agent.index
        for eligible in self._eligible.values():
            eligible.drop(bit)
        self._limit(agent)
        self.levels.leave(agent)

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
        self.levels.returned(agent)

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
        found = self.levels.roomiest(mask) or (self.levels.taken(mask & ~spared) if short else 0)
        if not found:
            return None
        for _, preferred in cls.eligible.preferred:
            if found & preferred:
                found &= preferred
                break
        return self.levels.best(found, rng)

    def _choose_fitting(self, cls: RequirementClass, mask: int, rng: Random) -> AgentState | None:
        """Return the best agent that has the slots and the resources now, of a few that have, or None.

        An agent that has not is not looked at again until it has gained room: however many tasks ask, it is looked at
        once.
        """
        requirement = cls.requirement
        for bits in self.levels.down_to(requirement.slots):
            found = bits & mask & cls.candidates
            if not found:
                continue
            for preferred in (*(agents for _, agents in cls.eligible.preferred), found):
                fit = self._fitting(cls, found & preferred, rng)
                if fit:
                    return self.levels.best(fit, rng)
                found &= ~preferred
        return None

    def _fitting(self, cls: RequirementClass, bits: int, rng: Random) -> int:
        """Return a few of `bits` whose agents have the room now; those that have not are no candidates any more."""
        fit = misfits = 0
        for agent in self.levels.some(bits, bits.bit_count(), rng):
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

    def eligible(self, cls: RequirementClass) -> Iterator[AgentState]:
        """Yield the agents that could run tasks of `cls`, and are not shut off after failures."""
        return self.levels.agents_of(cls.mask)

    def with_room(self, cls: RequirementClass) -> int:
        """Return the agents that have a free slot for a task of `cls` now, or as many as it takes, as bits."""
        self.levels.settle()
        found = self.levels.with_free(cls.requirement.slots) & cls.mask
        if cls.plain:
            return found
        looked_at = self.levels.agents_of(found & cls.candidates)
        return sum(1 << agent.index for agent in looked_at if agent.fits(cls.requirement))

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
