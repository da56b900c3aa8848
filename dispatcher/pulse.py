"""Whether the loops of a leader go round: when each was seen last, by the loop's own word.

A loop that waits for something to do is well; one that has taken something and does not come back is not.
"""

from collections.abc import Mapping

from bus.clock import monotonic_ms
from bus.records import LoopBeat


class Pulse:
    """The loops of one term of leadership."""

    def __init__(self) -> None:
        self._seen: dict[str, float | None] = {}
        """When each began what it does now; None while it waits."""

    def beat(self, loop: str) -> None:
        """Take note that a loop goes round, and does something now."""
        self._seen[loop] = monotonic_ms()

    def idle(self, loop: str) -> None:
        """Take note that a loop waits for something to do."""
        self._seen[loop] = None

    def told(self, now: int) -> Mapping[str, str]:
        """Return the JSON of each loop's `LoopBeat`, by its name; `now` is by the server's clock."""
        mine = monotonic_ms()
        ages = {loop: 0.0 if seen is None else (mine - seen) / 1000 for loop, seen in self._seen.items()}
        return {loop: LoopBeat(at=now, age=max(0.0, age)).model_dump_json() for loop, age in ages.items()}
