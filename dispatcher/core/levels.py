"""Agents as bits of integers, sorted by the room they have: which of a set has most of it, and who has gained some.

Each agent is one bit, each level of free capacity an integer. Both are kept up to date when an agent comes, goes or
changes, so to find the best of a set costs a few word-wise ANDs: 10,000 agents are 1.3 kB of bits.
"""

from collections.abc import Iterator
from random import Random
from typing import Final

from bus.states import AgentHealth
from dispatcher.core.config import SchedulerConfig
from dispatcher.core.model import AgentState

EXACT_LEVELS: Final = 8
LEVELS: Final = EXACT_LEVELS + 16
"""Level 0: all slots taken, but room for short work ahead. 1-8: so many free slots. Above: powers of two."""

_HIGH_TO_LOW: Final = tuple(range(LEVELS, 0, -1))

FEW: Final = 4
"""Up to so many agents of equal room are all compared by their record; of more two are drawn at random, which is nearly
as good: the "power of two choices" (Mitzenmacher, 2001)."""


def level_of(free: int) -> int:
    """Return the level of agents with so many free slots, at least one."""
    return free if free <= EXACT_LEVELS else min(EXACT_LEVELS + free.bit_length() - 3, LEVELS)


class Levels:
    """The agents of one pool by their room. `gained` collects the bits of those that have more than before."""

    def __init__(self, config: SchedulerConfig) -> None:
        self._config = config
        self.gained = 0
        self.lost = 0
        """Agents that are lost, as bits."""
        self._levels = [0] * (LEVELS + 1)
        self._eased: dict[AgentState, None] = {}
        """Agents that have given room back since they were put into their levels."""
        self._by_index: list[AgentState | None] = []
        self._free_indexes: list[int] = []

    # --- who is there

    def enter(self, agent: AgentState) -> None:
        """Give an agent its bit; `refresh` then puts it into its level."""
        if self._free_indexes:
            agent.index = self._free_indexes.pop()
            self._by_index[agent.index] = agent
        else:
            agent.index = len(self._by_index)
            self._by_index.append(agent)

    def leave(self, agent: AgentState) -> None:
        """Take its bit back: another may get it."""
        bit = 1 << agent.index
        if agent.level >= 0:
            self._levels[agent.level] ^= bit
            agent.level = -1
        self.lost &= ~bit
        self._by_index[agent.index] = None
        self._free_indexes.append(agent.index)
        agent.index = -1
        self._eased.pop(agent, None)

    # --- who has how much room

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
            return level_of(free)
        config = self._config
        if agent.load_ms < config.prefetch_ms * agent.slots and -free < config.prefetch_tasks:
            return 0
        return -1

    # --- looking

    @property
    def full(self) -> bool:
        """True when no agent at all takes anything."""
        return not any(self._levels)

    def roomiest(self, mask: int) -> int:
        """Return those of `mask` with most free slots, and at least one; 0 if none has."""
        levels = self._levels
        for level in _HIGH_TO_LOW:
            if levels[level] and (found := levels[level] & mask):
                return found
        return 0

    def taken(self, mask: int) -> int:
        """Return those of `mask` that have no free slot, and room for short work ahead."""
        return self._levels[0] & mask

    def down_to(self, slots: int) -> Iterator[int]:
        """Yield level after level, as bits, the roomiest first, of those in which so many slots may be free."""
        for level in range(LEVELS, level_of(slots) - 1, -1):
            yield self._levels[level]

    def with_free(self, slots: int) -> int:
        """Return the agents that have so many free slots, as bits; in the lowest of their levels perhaps fewer."""
        found = 0
        for bits in self.down_to(slots):
            found |= bits
        return found

    def agents_of(self, bits: int) -> Iterator[AgentState]:
        """Yield the agents of `bits`."""
        while bits:
            low = bits & -bits
            yield self._at(low)
            bits ^= low

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

    def best(self, bits: int, rng: Random) -> AgentState:
        """Return the agent with the best record among `bits`: of all if they are few, else of two that are drawn."""
        if not bits & (bits - 1):
            return self._at(bits)
        few = bits.bit_count() <= FEW
        width = bits.bit_length()
        best = self._at(_draw(bits, width, rng))
        for other in self.agents_of(bits) if few else (self._at(_draw(bits, width, rng)),):
            if other.standing > best.standing:
                best = other
        return best

    def _at(self, bit: int) -> AgentState:
        agent = self._by_index[bit.bit_length() - 1]
        assert agent is not None, "a bit without an agent"  # noqa: S101 - an invariant, not a check of input
        return agent


def _draw(bits: int, width: int, rng: Random) -> int:
    """Return one of `bits`: the first at or above a random place, around the end if there is none."""
    start = int(rng.random() * width)
    upper = bits >> start
    return (upper & -upper) << start if upper else bits & -bits
