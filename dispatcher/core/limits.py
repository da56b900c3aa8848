"""Rates and concurrency, held exactly across agents and leaders: one account per key.

A rate is kept by the generic cell rate algorithm (ITU-T I.371; as a limiter: Brandur Leach, "Rate limiting, cells, and
GCRA", 2015): one instant per key, the theoretical arrival time of the next start. It is stored with the decisions
that moved it, so a new leader goes on where the old one stopped. Concurrency is not stored at all: it is counted from
the tasks in agents' hands, which the ledger has anyway.

Counted is from assignment to end. A task that is handed back unbegun has used its start all the same.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bus.limits import Limit, interval_ms

if TYPE_CHECKING:
    from dispatcher.core.fleet import RequirementClass

FORGET_AT: Final = 1_000
"""So many rates are remembered before those that have come to rest are looked for."""


@dataclass(frozen=True, slots=True)
class Gate:
    """One limit as it is compared here; times are milliseconds."""

    key: str
    interval: float | None
    tolerance: float
    """How far ahead of the clock the theoretical arrival time may be: the burst but its first start."""
    concurrency: int | None


def gate_of(limit: Limit) -> Gate:
    """Return the gate of a limit."""
    interval = None if limit.rate is None else interval_ms(limit.rate)
    return Gate(limit.key, interval, 0.0 if interval is None else (limit.burst - 1) * interval, limit.concurrency)


def rate_gate(key: str, rate: str) -> Gate:
    """Return the gate of a rate that is nobody's but `key`'s; a key with a space is none that a user can name."""
    return Gate(key, interval_ms(rate), 0.0, None)


@dataclass(frozen=True, slots=True)
class Closed:
    """Why a gate lets nobody pass: until an instant, or (None) until somebody leaves."""

    key: str
    until: int | None


class Limits:
    """The accounts of one pool."""

    def __init__(self) -> None:
        self.arrivals: dict[str, float] = {}
        """Theoretical arrival time of the next start, by key."""
        self._held: dict[str, int] = {}
        self._queues: dict[str, dict[RequirementClass, None]] = {}
        self._rung: dict[str, int] = {}
        """For which instant a timer was set, by key."""
        self._moved: dict[str, None] = {}
        self._forget_at = FORGET_AT

    def closed(self, gates: tuple[Gate, ...], now: int) -> Closed | None:
        """Return the gate that lets no task pass now, None if all do."""
        for gate in gates:
            if gate.concurrency is not None and self._held.get(gate.key, 0) >= gate.concurrency:
                return Closed(gate.key, None)
            if gate.interval is not None:
                free_at = self.arrivals.get(gate.key, 0.0) - gate.tolerance
                if free_at > now:
                    return Closed(gate.key, int(-(-free_at // 1)))
        return None

    def start(self, gates: tuple[Gate, ...], now: int) -> None:
        """Count one start."""
        for gate in gates:
            if gate.interval is not None:
                self.arrivals[gate.key] = max(self.arrivals.get(gate.key, 0.0), now) + gate.interval
                self._moved[gate.key] = None

    def hold(self, gates: tuple[Gate, ...]) -> None:
        """Count one task in an agent's hands."""
        for key in dict.fromkeys(gate.key for gate in gates):
            self._held[key] = self._held.get(key, 0) + 1

    def release(self, gates: tuple[Gate, ...]) -> "list[RequirementClass]":
        """Count one task less; return the classes that waited for that."""
        opened: dict[RequirementClass, None] = {}
        for key in dict.fromkeys(gate.key for gate in gates):
            left = self._held[key] - 1
            if left:
                self._held[key] = left
            else:
                del self._held[key]
            opened |= self._queues.pop(key, {})
        return list(opened)

    def wait(self, closed: Closed, cls: "RequirementClass") -> bool:
        """Let a class wait for a gate; tell whether a timer must be set for it."""
        self._queues.setdefault(closed.key, {})[cls] = None
        if closed.until is None or closed.until >= self._rung.get(closed.key, closed.until + 1):
            return False
        self._rung[closed.key] = closed.until
        return True

    def open(self, key: str) -> "list[RequirementClass]":
        """Return the classes that wait for a gate, which wait no more; its timer has rung."""
        self._rung.pop(key, None)
        return list(self._queues.pop(key, {}))

    def moved(self, now: int) -> list[tuple[str, float | None]]:
        """Return what is to be stored of rates since the last call: (key, arrival), None for one that is at rest."""
        changes: list[tuple[str, float | None]] = [(key, self.arrivals[key]) for key in self._moved]
        self._moved = {}
        if len(self.arrivals) >= self._forget_at:
            at_rest = [key for key, arrival in self.arrivals.items() if arrival < now]
            for key in at_rest:
                del self.arrivals[key]
            changes += [(key, None) for key in at_rest]
            self._forget_at = max(FORGET_AT, 2 * len(self.arrivals))
        return changes

    def held(self, key: str) -> int:
        """Return how many tasks that name `key` are in agents' hands."""
        return self._held.get(key, 0)
