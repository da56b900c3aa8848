"""How an agent's process ends: the agreement between a process and whoever started it."""

from enum import IntEnum


class ExitCode(IntEnum):
    """What an exit code asks of the supervisor. Any other code is a crash: start again, after a backoff."""

    STOPPED = 0
    """It was told to stop, or to drain: leave it."""
    TOO_OLD = 69
    """The dispatcher writes messages of a newer version than it reads: as after a crash, and upgrade it."""
    RESTART = 75
    """It was told to restart: start it again at once."""
    SUPERSEDED = 76
    """Another process has its agent id now: leave it, or the two would displace each other for ever."""
    MISCONFIGURED = 78
    """It cannot start as it was told to (no such agent, a wrong setting): leave it, or it would fail for ever."""
