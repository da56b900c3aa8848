"""Heartbeats, from a thread and a connection of their own: user code that blocks the event loop is seen as that.

The thread touches nothing of the loop but what is safe from any thread: it copies the keys of what is held, reads
attributes, and asks the loop for a sign of life by `call_soon_threadsafe`. When the loop has not answered for
`STUCK_S`, the thread reads the control stream in its place, and ends the process if a restart was asked for: nothing
else can.
"""

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NamedTuple

from pydantic_core import from_json, to_json

from agent_runtime.exit_codes import ExitCode
from agent_runtime.inbox import AttemptKey
from agent_runtime.link import Link
from agent_runtime.observer import RuntimeObserver
from bus.connection import SERVER_ERRORS, connect_blocking
from bus.ids import SessionId
from bus.messages import VERSION
from bus.messages.agents import KEPT_BEATS
from bus.names import DATA_FIELD, PoolNames

LOG: Final = logging.getLogger("callboard.agent")

STUCK_S: Final = 2.0
COMMAND_TIMEOUT_S: Final = 1.0
_FIELD: Final = DATA_FIELD.encode()


LIFE: Final = frozenset({"pause", "resume", "drain", "restart"})
"""Instructions of which the latest counts."""


class Standing(NamedTuple):
    """What beats tell of the session as a whole; one value, so that no beat tells half of a change."""

    obeys: int = 0
    """Number of the last instruction that is heeded."""
    paused: bool = False
    draining: bool = False
    updated: int = 0
    """Number of the last change by operators of what the agent offers."""


class Heartbeat:
    """The thread of one worker. `start` and `stop` are called from the event loop."""

    def __init__(  # noqa: PLR0913 - it speaks for all parts of a worker
        self,
        url: str,
        names: PoolNames,
        agent_id: str,
        session: SessionId,
        *,
        interval: float,
        holding: Callable[[], list[AttemptKey]],
        occupied: Callable[[], int],
        cursors: Callable[[], tuple[str, str]],
        link: Link,
        observer: RuntimeObserver,
        exit_process: Callable[[int], None] = os._exit,
    ) -> None:
        self._redis = connect_blocking(url, name=f"callboard-agent-{agent_id}-heartbeat", timeout=COMMAND_TIMEOUT_S)
        self._stream = names.heartbeats
        self._control = names.control(agent_id)
        self._agent_id = agent_id
        self._session = session
        self._interval = interval
        self._holding = holding
        self._occupied = occupied
        self._cursors = cursors
        self._link = link
        self._observer = observer
        self._exit_process = exit_process
        self._seq = 0
        self._asked: float | None = None
        self._lag = 0.0
        self._stopping = False
        self._due = threading.Event()
        self._thread = threading.Thread(target=self._work, name="callboard-heartbeat", daemon=True)
        self.standing = Standing()
        self.confirmed_at = time.monotonic()
        """When the last heartbeat that the server has acknowledged was sent, by the monotonic clock."""

    def start(self) -> None:
        """Begin to beat, for the event loop that runs now."""
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self.confirmed_at = time.monotonic()
        self._thread.start()

    def beat_now(self) -> None:
        """Beat without waiting for the interval."""
        self._due.set()

    async def stop(self) -> None:
        """Beat no more; returns when the thread has ended, which a dead server delays by its timeout."""
        if self._thread.is_alive():
            self._stopping = True
            self._due.set()
            await self._ended.wait()

    def _work(self) -> None:
        try:
            while not self._stopping:
                self._due.clear()
                try:
                    self._turn()
                except Exception:
                    # A task may have taken all memory, for a moment. An agent whose thread has ended is dead for good.
                    with suppress(MemoryError):
                        LOG.exception("a heartbeat has failed, the next one is due as ever")
                self._due.wait(self._interval)
        finally:
            self._redis.close()
            self._tell_loop(self._ended.set)

    def _turn(self) -> None:
        self._measure()
        self._beat()
        if self._lag > STUCK_S:
            self._restart_if_told()

    def _beat(self) -> None:
        self._seq += 1
        standing = self.standing
        body = to_json(
            {
                "v": VERSION,
                "agent_id": self._agent_id,
                "session": self._session,
                "seq": self._seq,
                "holding": self._holding(),
                "inbox": self._cursors()[0],
                "lag": round(self._lag, 4),
                "occupied": self._occupied(),
                "draining": standing.draining,
                "paused": standing.paused,
                "obeys": standing.obeys,
                "updated": standing.updated,
            }
        )
        sent = time.monotonic()
        try:
            self._redis.xadd(self._stream, {DATA_FIELD: body}, maxlen=KEPT_BEATS, approximate=True)
        except SERVER_ERRORS as error:
            self._link.failed("heartbeat", error)
            self._observer.heartbeat(False)  # noqa: FBT003 - the protocol's outcome
            return
        self.confirmed_at = sent
        self._link.works("heartbeat")
        self._observer.heartbeat(True)  # noqa: FBT003 - the protocol's outcome

    def _measure(self) -> None:
        """Take the loop's answer to the last question, or how long it has been due, and ask again."""
        now = time.monotonic()
        if self._asked is not None:
            self._lag = now - self._asked
        else:
            self._asked = now
            self._tell_loop(self._answer, now)
        self._observer.loop_lag(self._lag)

    def _answer(self, asked: float) -> None:
        self._lag = time.monotonic() - asked
        self._asked = None

    def _tell_loop(self, call: Callable[..., object], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:
            LOG.debug("the event loop is closed")

    def _restart_if_told(self) -> None:
        cursor = self._cursors()[1]
        try:
            entries: list[Any] = self._redis.xrange(self._control, min=f"({cursor}", count=1000) or []
        except SERVER_ERRORS as error:
            self._link.failed("heartbeat", error)
            return
        told = ""
        for _, fields in entries:
            try:
                message = from_json(fields[_FIELD])
                if message["session"] == self._session and message["type"] in LIFE:
                    told = message["type"]
            except (ValueError, KeyError, TypeError):
                continue
        if told == "restart":
            LOG.error("the event loop is stuck for %.0f s and a restart was asked for: ending now", self._lag)
            self._exit_process(ExitCode.RESTART)
