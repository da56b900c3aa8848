"""Entries of a version that this leader does not know: they stay in their streams for one that does.

The oldest entry of a stream tells up to when all of it is consumed (see `Engine.read_horizon`), and parked ones are no
reason to wait. However many they are, and for however long, looking for the oldest of the others costs the same: what
has once been found to stand at the head of a stream is passed over from then on, since ids only grow.
"""

from collections.abc import Iterable, Sequence
from typing import Final

PAGE: Final = 100
"""So many entries are looked at in one go."""


class Parked:
    """What one leader has parked, stream by stream, in one term."""

    def __init__(self) -> None:
        self._ids: dict[str, set[str]] = {}
        self._passed: dict[str, str] = {}

    def add(self, stream: str, ids: Iterable[str]) -> None:
        """Note entries that were read and are left where they are; again does no harm."""
        self._ids.setdefault(stream, set()).update(ids)

    def count(self, stream: str) -> int:
        """Return how many of a stream were parked."""
        return len(self._ids.get(stream, ()))

    def start(self, stream: str) -> str:
        """Return where an XRANGE has to begin that looks for the oldest entry that is not parked."""
        return f"({passed}" if (passed := self._passed.get(stream)) else "-"

    def first_other(self, stream: str, ids: Sequence[str]) -> str | None:
        """Return the oldest of such a range that is not parked, or None if there is none in the stream.

        `ids` are the first `PAGE` entries from `start` on. If all of them are parked, and there may be more, the last
        is returned: nothing older waits, and the next look goes on behind it.
        """
        parked = self._ids.get(stream, ())
        for entry_id in ids:
            if entry_id not in parked:
                return entry_id
            self._passed[stream] = entry_id
        return ids[-1] if len(ids) == PAGE else None
