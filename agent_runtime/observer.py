"""What an agent's process tells whoever watches it. `metrics` implements this without being imported here."""

from collections.abc import Sequence
from typing import Protocol


class RuntimeObserver(Protocol):
    """Told by one worker what happens in it; must return at once and never raise. Durations in seconds.

    `heartbeat` and `loop_lag` are called from the heartbeat's thread, everything else from the event loop.
    """

    def started(self, capability: str, count: int) -> None:
        """Note that so many attempts were begun."""

    def finished(self, capability: str, status: str, reason: str, seconds: Sequence[float]) -> None:
        """Note that attempts have their results (`reason` is empty unless they failed), and how long each has run."""

    def slots(self, used: int, total: int) -> None:
        """Note that so many slots are in use now."""

    def heartbeat(self, ok: bool) -> None:  # noqa: FBT001 - two outcomes of one event
        """Note that a heartbeat was written, or could not be."""

    def reports(self, count: int, seconds: float) -> None:
        """Note that one flush brought so many reports to the server in so long."""

    def loop_lag(self, seconds: float) -> None:
        """Note how late the event loop is."""

    def connected(self, ok: bool) -> None:  # noqa: FBT001 - two states of one thing
        """Note that the server answers, or has ceased to."""


class _Silent:
    def started(self, capability: str, count: int) -> None:
        pass

    def finished(self, capability: str, status: str, reason: str, seconds: Sequence[float]) -> None:
        pass

    def slots(self, used: int, total: int) -> None:
        pass

    def heartbeat(self, ok: bool) -> None:  # noqa: FBT001 - as the protocol has it
        pass

    def reports(self, count: int, seconds: float) -> None:
        pass

    def loop_lag(self, seconds: float) -> None:
        pass

    def connected(self, ok: bool) -> None:  # noqa: FBT001 - as the protocol has it
        pass


SILENT: RuntimeObserver = _Silent()
"""Watches nothing."""
