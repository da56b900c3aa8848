"""When a failed attempt may be repeated: exponential backoff with full jitter and a cap, and whether at all.

The jitter is AWS's "full jitter" (Brooker, 2015): uniform between zero and the exponential bound, which spreads a
burst of failures best.
"""

from random import Random
from typing import Final

from bus.messages import TaskError
from bus.records import AttemptRecord
from bus.retries import RetryPolicy
from bus.states import FailureReason

POISON_LOSSES: Final = 3
"""So many attempts in a row that each lost their agent make a task poison: it is hardly the victim each time."""


def backoff_ms(policy: RetryPolicy, failures: int, rng: Random) -> int:
    """Return how long to wait before the next attempt after `failures` (≥ 1) failed ones, in milliseconds."""
    bound = min(policy.cap, policy.base * policy.factor ** min(failures - 1, 60)) * 1000
    return int(rng.random() * bound) if policy.jitter else int(bound)


def forbids(policy: RetryPolicy, error: TaskError | None) -> bool:
    """Tell whether errors of this type are not worth another try: by its full name, or the last part of it."""
    return error is not None and any(
        error.type == name or error.type.rpartition(".")[2] == name for name in policy.never_for
    )


def poison(attempts: tuple[AttemptRecord, ...]) -> TaskError | None:
    """Return the evidence against a task whose latest attempts each killed their agent; None if they did not.

    Attempts that were not begun say nothing for or against it.
    """
    begun = [attempt for attempt in attempts if attempt.started_at is not None][-POISON_LOSSES:]
    # An agent that gives an attempt up with an error of its own, because it was told to stop, has not been killed.
    killed = [a for a in begun if a.outcome == FailureReason.AGENT_LOST and a.error is None]
    if len(killed) < POISON_LOSSES:
        return None
    agents = ", ".join(f"{a.agent_id} (attempt {a.attempt})" for a in begun)
    return TaskError(
        type="Poison",
        message=f"its last {POISON_LOSSES} attempts each lost their agent: {agents}",
        details=[{"agent_id": a.agent_id, "attempt": a.attempt, "lost_at": a.ended_at} for a in begun],
    )
