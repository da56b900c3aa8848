"""What time it is: the one place that asks for the wall clock's, and the server's as seen from here.

Times that processes compare are milliseconds since the epoch by the *server's* clock (stream entry ids, the
leader's `ServerClock`); this module's wall clock only makes ids and what is shown, and decides nothing. How long
something takes in one process is measured with `time.monotonic` or the event loop's clock, wherever that is needed.
"""

import time


def wall_ms() -> int:
    """Return this machine's wall clock in milliseconds since the epoch; for ids and display only."""
    return time.time_ns() // 1_000_000


def monotonic_ms() -> float:
    """Return a clock that never goes backwards, in milliseconds from an arbitrary start; for local durations."""
    return time.monotonic_ns() / 1_000_000


class ServerClock:
    """The server's time, carried forward by this machine's monotonic clock; it never goes backwards.

    `observe` takes what the TIME command (or an entry id) said; between observations the monotonic clock runs on. A
    server that steps its clock back only makes this one stand still until the server has caught up.
    """

    __slots__ = ("_latest", "_offset")

    def __init__(self) -> None:
        self._offset: float | None = None
        self._latest = 0

    def observe(self, server_ms: int) -> None:
        """Take the server's time, in milliseconds since the epoch, as true now."""
        self._offset = server_ms - monotonic_ms()

    def now_ms(self) -> int:
        """Return the server's time in milliseconds; the machine's own before the first observation."""
        now = wall_ms() if self._offset is None else int(monotonic_ms() + self._offset)
        self._latest = max(self._latest, now)
        return self._latest
