"""The one backoff: exponential with full jitter.

Full jitter (a wait drawn between nothing and the bound) keeps a thousand agents that lost the same server from
coming back in step; see M. Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015.
"""

import random


class Backoff:
    """Waits that grow with each failure in a row, in seconds."""

    def __init__(self, *, base: float, cap: float) -> None:
        self._base = base
        self._cap = cap
        self._failures = 0

    def next(self) -> float:
        """Count one failure more and return how long to wait: at least a tenth of the bound, so never a spin."""
        bound = min(self._cap, self._base * 2 ** min(self._failures, 30))
        self._failures += 1
        return random.uniform(bound / 10, bound)

    def reset(self) -> None:
        """Start anew: it worked."""
        self._failures = 0
