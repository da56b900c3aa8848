"""What tasks ask for, apart from their identity and payload: equal submissions share one `Terms` object.

A million waiting tasks are mostly alike, and their leader remembers of each only what is its own.
"""

from dataclasses import dataclass, field, replace
from typing import Final

from bus.acceptance import CAPABILITY, FAIRNESS_KEY, PRIORITY, TAGS
from bus.messages import TaskHeader
from bus.requirements import Clause, Preference, Value
from bus.retries import RetryPolicy
from bus.states import TaskPriority
from dispatcher.core.config import SchedulerConfig
from dispatcher.core.limits import Gate, gate_of

KEPT: Final = 8_192
"""So many different terms are remembered for sharing; then it begins anew, which costs memory and changes nothing."""

MILLI: Final = 1_000
"""Resources are counted in thousandths, so that what was granted is returned exactly."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """What a task asks of an agent. Tasks with equal requirements form one class.

    Equal by `key` alone: to Python the conditions ``n == 1`` and ``n == true`` would be the same.
    """

    key: str
    capability: str = field(compare=False)
    version: str | None = field(default=None, compare=False)
    conditions: tuple[Clause, ...] = field(default=(), compare=False)
    preferences: tuple[Preference, ...] = field(default=(), compare=False)
    slots: int = field(default=1, compare=False)
    resources: tuple[tuple[str, int], ...] = field(default=(), compare=False)
    """Name and thousandths of each resource that it takes."""
    gates: tuple[Gate, ...] = field(default=(), compare=False)
    """The limits that it carries itself; its capability may have more."""
    agent_key: str = field(default="", compare=False)
    """The part of `key` that is asked of an agent: all but the limits."""


@dataclass(frozen=True, slots=True, eq=False)
class Terms:
    """All of a submission but its identity and payload; durations are milliseconds."""

    requirement: Requirement
    priority: TaskPriority
    head_start_ms: int
    max_attempts: int = 3
    run_timeout_ms: int | None = None
    queue_timeout_ms: int | None = None
    progress_timeout_ms: int | None = None
    delay_ms: int = 0
    fairness_key: str | None = None
    estimate_ms: float | None = None
    reply_to: str | None = None
    retry: RetryPolicy | None = None
    tags: tuple[str, ...] = ()
    fail_fast: bool = False

    @property
    def facts(self) -> dict[str, Value]:
        """What agents may ask of the task, by the names in `bus.acceptance`; what it has not is left out."""
        found: dict[str, Value] = {CAPABILITY: self.requirement.capability, PRIORITY: self.priority}
        if self.fairness_key is not None:
            found[FAIRNESS_KEY] = self.fairness_key
        if self.tags:
            found[TAGS] = [*self.tags]
        return found


class TermsBook:
    """Makes terms of submissions; the same object for equal ones."""

    def __init__(self, config: SchedulerConfig) -> None:
        self._config = config
        self._known: dict[tuple[object, ...], Terms] = {}
        self._stored: dict[int, tuple[TaskHeader, Terms]] = {}
        """By the identity of headers, which are kept here so that no other gets the same."""

    def of(self, header: TaskHeader) -> Terms:
        """Return the terms of a submission."""
        special = bool(header.requires or header.prefers or header.resources or header.limits)
        key = (
            header.requirement_key if special else None,
            header.capability,
            header.version,
            header.slots,
            header.priority,
            header.max_attempts,
            header.run_timeout,
            header.queue_timeout,
            header.progress_timeout,
            header.retry,
            header.delay,
            header.fairness_key,
            header.estimated_duration,
            header.reply_to,
            header.tags,
            header.fail_fast,
        )
        terms = self._known.get(key)
        if terms is None:
            if len(self._known) >= KEPT:
                self._known.clear()
            terms = self._known[key] = self._make(header)
        return terms

    def of_stored(self, header: TaskHeader) -> Terms:
        """Return the terms of a submission that is read of the ledger, where equal ones come with the same header."""
        found = self._stored.get(id(header))
        if found is None:
            if len(self._stored) >= KEPT:
                self._stored.clear()
            found = self._stored[id(header)] = header, self.of(header)
        return found[1]

    def forget_stored(self) -> None:
        """Drop what made it fast to read the ledger."""
        self._stored.clear()

    def with_priority(self, terms: Terms, priority: TaskPriority) -> Terms:
        """Return the same terms with another priority."""
        key = (terms, priority)
        changed = self._known.get(key)
        if changed is None:
            changed = replace(terms, priority=priority, head_start_ms=self._config.head_start_ms[priority])
            self._known[key] = changed
        return changed

    def _make(self, header: TaskHeader) -> Terms:
        return Terms(
            requirement=requirement_of(header),
            priority=header.priority,
            head_start_ms=self._config.head_start_ms[header.priority],
            max_attempts=header.max_attempts,
            run_timeout_ms=_ms(header.run_timeout),
            queue_timeout_ms=_ms(header.queue_timeout),
            progress_timeout_ms=_ms(header.progress_timeout),
            retry=header.retry,
            delay_ms=int(header.delay * 1000),
            fairness_key=header.fairness_key,
            estimate_ms=None if header.estimated_duration is None else header.estimated_duration * 1000,
            reply_to=header.reply_to,
            tags=header.tags,
            fail_fast=header.fail_fast,
        )


def requirement_of(header: TaskHeader) -> Requirement:
    """Return what a submission asks of an agent."""
    return Requirement(
        key=header.requirement_key,
        agent_key=header.agent_requirement_key,
        capability=header.capability,
        version=header.version,
        conditions=header.requires,
        preferences=header.prefers,
        slots=header.slots,
        resources=tuple(sorted((name, round(amount * MILLI)) for name, amount in header.resources.items())),
        gates=tuple(gate_of(limit) for limit in header.limits),
    )


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds * 1000)
