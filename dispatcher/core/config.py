"""What can be tuned in the scheduler. Durations are milliseconds, for all instants in the core are."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from bus.retries import RetryPolicy
from bus.states import TaskPriority

HEAD_START_MS: Mapping[TaskPriority, int] = MappingProxyType(
    {
        TaskPriority.LOW: 0,
        TaskPriority.MEDIUM: 60_000,
        TaskPriority.HIGH: 600_000,
        TaskPriority.URGENT: 3_600_000,
    }
)


@dataclass(frozen=True, slots=True)
class SchedulerConfig:
    """Policy of one pool."""

    head_start_ms: Mapping[TaskPriority, int] = field(default_factory=lambda: HEAD_START_MS)
    fairness_weights: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    """Weights of fairness keys; 1 for all others."""
    prefetch_ms: float = 20.0
    """Work an agent may have ahead of its slots, by its capabilities' measured durations."""
    prefetch_tasks: int = 1000
    """Most tasks ahead of its slots, however short they are."""
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    """How tasks are repeated that do not say it themselves, nor their capability."""
    cancel_grace_ms: int = 5_000
    """How long an agent has to stop what is cancelled, where the cancel does not say it."""
    timeout_grace_ms: int = 5_000
    """How long after run_timeout the agent may still report its own verdict."""
    breaker_failures: int = 20
    """Failed attempts in a row after which an agent gets no more of that capability for a while; 0: never."""
    breaker_cooldown_ms: int = 5_000
    """How long that is at first; it doubles with each probe that fails."""
    breaker_cap_ms: int = 300_000
    blocked_lag_s: float = 2.0
    """An agent whose event loop is later than this gets no new work."""
    recall_after_ms: int = 100
    """How long work ahead of an agent's slots may wait there while another agent has a free slot, or something more
    urgent waits for the agent."""
    blocked_patience_ms: int = 10_000
    """How long an agent whose event loop is blocked keeps what it has not begun."""
    deaf_probation_ms: int = 10_000
    """How long an agent that did not read its assignments goes without."""
    fail_fast_grace_ms: int = 10_000
    """How long after a leader's start, or an agent's farewell, a task that is to fail fast waits for one to sign in."""
    max_pending: int | None = None
    """Most tasks of the pool that may wait; more are refused to their submitters."""
    capability_max_pending: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    """The same of single capabilities; where agents state less, that counts."""
    forget_agent_ms: int = 3_600_000
    """How long a stopped or lost agent stays listed."""
    placements_per_pass: int = 300
    """Most tasks placed in one pass, for the same reason as below."""
    timers_per_pass: int = 500
    """Most timers of single tasks that ring in one pass, and fewer of those that make more work each: a pass must be
    over long before the leader's lease."""
    sorted_per_pass: int = 1_000
    """Most waiting tasks that are sorted anew in one pass, when an agent asks of tasks what nobody has asked."""
    children_per_pass: int = 500
    """Most children that are cancelled with their parents in one pass, for the same reason."""
    schedule_grace_ms: int = 60_000
    """How late a schedule may fire before its firing counts as missed: a change of leader fits into it."""
    schedule_looks_per_pass: int = 500
    """Most instants of schedules that are looked at in one pass, for the same reason as above."""
    tombstone_ms: int = 60_000
    """How long a cancel waits for a submission that it has overtaken."""
