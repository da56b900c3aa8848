"""Whether the server answers, as all parts of a worker see it together; an outage is logged once, not per try.

A refusal (a missing permission, a key of a wrong type) is no outage: time does not cure it. The parts try on, for an
operator may, and what runs shall not be lost; but each says so again and again, as an error.
"""

import logging
import threading
import time
from typing import Final

from agent_runtime.observer import RuntimeObserver
from bus.outage import is_refusal

LOG: Final = logging.getLogger("callboard.agent")

SETTLING_S: Final = 3.0
"""After an outage each part finds its own connection dead once: for so long that is the old outage, not a new one."""
REFUSED_EVERY_S: Final = 5.0
"""How often, at most, a part logs that the server refuses it."""


class Link:
    """The parts that have trouble now. Thread-safe: the heartbeat has a thread and a connection of its own."""

    def __init__(self, url: str, observer: RuntimeObserver) -> None:
        self._url = url
        self._observer = observer
        self._lock = threading.Lock()
        self._troubled: set[str] = set()
        self._said = False
        self._known = False
        self._restored_at = -SETTLING_S
        self._refused: dict[str, float] = {}
        """When each part last said that it was refused."""

    def failed(self, part: str, cause: BaseException) -> None:
        """`part` could not do what it wanted from the server."""
        if is_refusal(cause):
            self._refuse(part, cause)
            return
        with self._lock:
            self._troubled.add(part)
            first = not self._said and time.monotonic() - self._restored_at >= SETTLING_S
            self._said = self._said or first
        if first:
            text = str(cause) or type(cause).__name__
            LOG.warning("no answer from the server at %s (%s); trying again until it is back", self._url, text)
            self._observer.connected(False)  # noqa: FBT003 - the protocol's outcome

    def _refuse(self, part: str, cause: BaseException) -> None:
        now = time.monotonic()
        with self._lock:
            due = now - self._refused.get(part, -REFUSED_EVERY_S) >= REFUSED_EVERY_S
            if due:
                self._refused[part] = now
        if due:
            LOG.error(
                "the server at %s refuses the %s of this agent (%s: %s): trying on, but somebody has to change that",
                self._url,
                part,
                type(cause).__name__,
                cause,
            )

    def works(self, part: str) -> None:
        """`part` reached the server. Costs nothing unless it had trouble."""
        if part not in self._troubled:
            if not self._known:
                self._known = True
                self._observer.connected(True)  # noqa: FBT003 - the protocol's outcome
            return
        with self._lock:
            self._troubled.discard(part)
            last = self._said and not self._troubled
            if last:
                self._said = False
                self._restored_at = time.monotonic()
        if last:
            LOG.info("the server answers again")
            self._observer.connected(True)  # noqa: FBT003 - the protocol's outcome
