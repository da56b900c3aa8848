"""What an agent has done of one capability: how often, and how long it took, in bounded room.

Durations are counted in buckets whose bounds grow by a constant factor, so that a quantile is right within 5 % whatever
the scale: Masson, Rim, Lee, "DDSketch: A Fast and Fully-Mergeable Quantile Sketch with Relative-Error Guarantees", VLDB
2019. There are at most some 260 of them, and few are ever used. When 2,000 durations are counted all counts are halved:
what was long ago counts less and less, and an agent that has become slow shows it.
"""

from collections.abc import Sequence
from math import ceil, log
from typing import Final

ERROR: Final = 0.05
_GAMMA: Final = (1 + ERROR) / (1 - ERROR)
_SCALE: Final = 1 / log(_GAMMA)
_LEAST_MS: Final = 0.01
_MOST_MS: Final = 1e9
AGES_AT: Final = 2_000


class Tally:
    """One agent's work of one capability, in its session and under this leader."""

    __slots__ = ("_buckets", "_counted", "completed", "failed")

    def __init__(self) -> None:
        self.completed = 0
        self.failed = 0
        self._buckets: dict[int, int] = {}
        self._counted = 0

    def ran(self, ms: float) -> None:
        """Count a task that was completed after so long."""
        self.completed += 1
        if not _LEAST_MS < ms < _MOST_MS:
            ms = _MOST_MS if ms >= _MOST_MS else _LEAST_MS
        bucket = ceil(log(ms) * _SCALE)
        buckets = self._buckets
        if bucket in buckets:
            buckets[bucket] += 1
        else:
            buckets[bucket] = 1
        self._counted += 1
        if self._counted >= AGES_AT:
            self._age()

    def _age(self) -> None:
        self._buckets = {bucket: half for bucket, count in self._buckets.items() if (half := count // 2)}
        self._counted = sum(self._buckets.values())

    def quantiles(self, shares: Sequence[float]) -> list[float] | None:
        """Return the durations (ms) that so large shares of the tasks did not exceed; None if none was counted.

        `shares` ascend.
        """
        if not self._counted:
            return None
        found: list[float] = []
        below = 0
        rest = iter(shares)
        share = next(rest, None)
        for bucket, count in sorted(self._buckets.items()):
            below += count
            while share is not None and below >= share * self._counted:
                found.append(2 * _GAMMA**bucket / (_GAMMA + 1))
                share = next(rest, None)
        return found
