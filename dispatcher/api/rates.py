"""How many requests each token may make: a token bucket per token, in this process.

Several API processes each have buckets of their own, so that together they let through their number times the rate.
That is meant against a runaway program, not as a quota: it costs no round trip.
"""

from collections import OrderedDict
from typing import Final

_BUCKETS: Final = 10_000


class Rates:
    """The buckets. Times are seconds by any clock that never goes backwards."""

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """By token: what was left, and when."""

    def wait(self, token_id: str, now: float) -> float:
        """Take one request; return 0 if it may pass, else the seconds after which it may, having taken nothing."""
        left, at = self._buckets.get(token_id, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._rate)
        passes = left >= 1
        self._buckets[token_id] = (left - passes, now)
        self._buckets.move_to_end(token_id)
        if len(self._buckets) > _BUCKETS:
            self._buckets.popitem(last=False)
        return 0.0 if passes else (1 - left) / self._rate
