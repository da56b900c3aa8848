"""When a failed attempt may be repeated: exponential backoff with full jitter and a cap.

The jitter is AWS's "full jitter" (Brooker, 2015): uniform between zero and the exponential bound, which spreads a
burst of failures best.
"""

from random import Random

from dispatcher.core.config import SchedulerConfig


def backoff_ms(config: SchedulerConfig, failures: int, rng: Random) -> int:
    """Return how long to wait before the next attempt after `failures` (≥ 1) failed ones, in milliseconds."""
    bound = min(config.retry_cap_ms, config.retry_base_ms * 2 ** min(failures - 1, 30))
    return int(rng.random() * bound)
