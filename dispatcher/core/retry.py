"""When a failed attempt may be repeated: exponential backoff with full jitter and a cap, and whether at all.

The jitter is AWS's "full jitter" (Brooker, 2015): uniform between zero and the exponential bound, which spreads a
burst of failures best.
"""

from itertools import takewhile
from random import Random
from typing import Final

from bus.messages import TaskError
from bus.records import AttemptRecord
from bus.retries import RetryPolicy
from bus.states import FailureReason

POISON_LOSSES: Final = 3
"""So many attempts in a row that each lost their agent make a task poison: it is hardly the victim each time."""
POISON_BEGUN: Final = 2
"""Of those so many are known to have begun. The first may not be: an agent that dies at once has not said so yet, while
later attempts begin only when that is stored."""


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

    Attempts that were not begun, and ended otherwise, say nothing for or against it.
    """
    killed = list(takewhile(_killed, (a for a in reversed(attempts) if a.started_at is not None or _killed(a))))
    killed = killed[POISON_LOSSES - 1 :: -1]
    if len(killed) < POISON_LOSSES or sum(a.started_at is not None for a in killed) < POISON_BEGUN:
        return None
    agents = ", ".join(f"{a.agent_id} (attempt {a.attempt})" for a in killed)
    return TaskError(
        type="Poison",
        message=f"its last {POISON_LOSSES} attempts each lost their agent: {agents}",
        details=[{"agent_id": a.agent_id, "attempt": a.attempt, "lost_at": a.ended_at} for a in killed],
    )


def _killed(attempt: AttemptRecord) -> bool:
    """Tell whether the agent was lost; one that gives up with an error of its own was told to stop, and lives."""
    return attempt.outcome == FailureReason.AGENT_LOST and attempt.error is None
