"""Whether the server answers, as all parts of a worker see it together; an outage is logged once, not per try."""

import logging
import threading
import time
from typing import Final

import redis.exceptions

from agent_runtime.observer import RuntimeObserver

LOG: Final = logging.getLogger("callboard.agent")

LINK_ERRORS: Final = (redis.exceptions.RedisError, OSError)
"""What a command raises when it could not be done now and may be later. Error replies (out of memory, loading,
read-only after a failover) are of the same kind: the server is not ready, and our commands are not at fault."""

SETTLING_S: Final = 3.0
"""After an outage each part finds its own connection dead once: for so long that is the old outage, not a new one."""


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

    def failed(self, part: str, cause: BaseException) -> None:
        """`part` could not reach the server."""
        with self._lock:
            self._troubled.add(part)
            first = not self._said and time.monotonic() - self._restored_at >= SETTLING_S
            self._said = self._said or first
        if first:
            text = str(cause) or type(cause).__name__
            LOG.warning("no answer from the server at %s (%s); trying again until it is back", self._url, text)
            self._observer.connected(False)  # noqa: FBT003 - the protocol's outcome

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
