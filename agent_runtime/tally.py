"""What an observer is told of attempts: counted as they begin and end, told once for all of one moment."""

import asyncio

from agent_runtime.observer import RuntimeObserver

Ending = tuple[str, str, str]
"""Capability, status, and the reason if it failed."""


class Tally:
    """Used from the event loop only."""

    def __init__(self, observer: RuntimeObserver) -> None:
        self._loop = asyncio.get_running_loop()
        self._observer = observer
        self._begun: dict[str, int] = {}
        self._ended: dict[Ending, list[float]] = {}
        self._due = False

    def started(self, capability: str) -> None:
        """Count an attempt that begins."""
        self._begun[capability] = self._begun.get(capability, 0) + 1
        if not self._due:
            self._plan()

    def finished(self, ending: Ending, seconds: float) -> None:
        """Count an attempt that has its result."""
        took = self._ended.get(ending)
        if took is None:
            took = self._ended[ending] = []
        took.append(seconds)
        if not self._due:
            self._plan()

    def _plan(self) -> None:
        self._due = True
        self._loop.call_soon(self._tell)

    def _tell(self) -> None:
        self._due = False
        begun, self._begun = self._begun, {}
        ended, self._ended = self._ended, {}
        for capability, number in begun.items():
            self._observer.started(capability, number)
        for (capability, status, reason), seconds in ended.items():
            self._observer.finished(capability, status, reason, seconds)
