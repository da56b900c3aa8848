"""When something recurs: by a cron text in a time zone, or by an interval. The only place that knows `cronsim`.

Pure: instants are milliseconds since the epoch, and nothing here asks what time it is. What can never occur is refused
when it is made, so that no search goes on for ever.

A cron text has five fields: minute, hour, day of month, month, day of week. On the days on which a zone's clock is
changed it is as in Debian's cron: with a fixed minute and hour it occurs once, when the gap ends if its time is left
out, and the first time if its time comes twice. With ``*`` in the minute or hour it follows the clock on the wall: what
is left out does not occur, what comes twice occurs twice.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from typing import Final, Protocol
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

CRON_LENGTH: Final = 200
FIELDS: Final = 5
EXAMPLE: Final = "write minute, hour, day of month, month and day of week, e.g. '0 3 * * *' or '*/15 8-18 * * MON-FRI'"

_ZONE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_+/-]{0,63}")
_SOME_TIME: Final = datetime(2024, 1, 1, tzinfo=UTC)


class Recurrence(Protocol):
    """A row of instants that need not end."""

    def after(self, instant: int) -> Iterator[int]:
        """Yield the instants after `instant`, in their order."""


@dataclass(frozen=True, slots=True)
class Cron:
    """Occurs as a cron text says. Made by `cron`, which checks the text."""

    text: str
    zone: tzinfo

    def after(self, instant: int) -> Iterator[int]:
        """Yield the instants after `instant`, in their order."""
        last = instant
        for found in CronSim(self.text, datetime.fromtimestamp(instant // 1000, self.zone)):
            # Where a zone's hour comes twice, cronsim goes by the clock on the wall and may look back.
            at = int(found.timestamp()) * 1000
            if at > last:
                last = at
                yield at


@dataclass(frozen=True, slots=True)
class Every:
    """Occurs each `interval` ms, at `anchor` and after it: it does not drift."""

    interval: int
    anchor: int

    def after(self, instant: int) -> Iterator[int]:
        """Yield the instants after `instant`, in their order."""
        at = self.anchor + max(0, (instant - self.anchor) // self.interval + 1) * self.interval
        while True:
            yield at
            at += self.interval


@lru_cache(maxsize=4096)
def cron(text: str, timezone: str) -> Cron:
    """Return the recurrence of a cron text. Raises `ValueError`, which says what to write."""
    fields = text.split()
    if len(fields) != FIELDS or len(text) > CRON_LENGTH:
        hint = "; for seconds there is `every`" if len(fields) == FIELDS + 1 else ""
        raise ValueError(f"{text[:CRON_LENGTH]!r} is no cron text of five fields: {EXAMPLE}{hint}")
    found = Cron(text, zone(timezone))
    try:
        first = next(CronSim(text, _SOME_TIME), None)
    except (CronSimError, ValueError, AssertionError) as error:
        raise ValueError(f"{text!r} is no cron text ({str(error).lower() or 'not readable'}): {EXAMPLE}") from None
    if first is None:
        raise ValueError(f"{text!r} never occurs: no such day has ever come")
    return found


def zone(name: str) -> tzinfo:
    """Return a time zone. Raises `ValueError`, which says what to write."""
    if name == "UTC":
        return UTC  # which cronsim takes the short way with
    remedy = "write a name of the IANA database, e.g. Europe/Berlin or UTC"
    if not _ZONE.fullmatch(name):
        raise ValueError(f"{name[:64]!r} is no time zone: {remedy}")
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError(f"no time zone {name!r} here: {remedy}; where the system has none, install tzdata") from None
