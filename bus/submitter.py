"""Single submissions of many coroutines, sent together when they come together.

Each round trip costs the server a script call and this process a hundred microseconds, and a client has few
connections. So while a call is under way what comes is collected, and goes with the next call. A submission that finds
nothing under way is sent at once and alone: under light load nothing waits for a timer, or for a neighbour.
"""

import asyncio
from collections import deque

from bus.connection import Redis
from bus.errors import BusUnavailableError
from bus.names import PoolNames
from bus.submission import Sent, Submission, in_calls, send


class Submitter:
    """Sends what the coroutines of one client submit; one call is under way for each pool."""

    def __init__(self, redis: Redis, url: str) -> None:
        self._redis = redis
        self._url = url
        self._lanes: dict[str, _Lane] = {}

    async def submit(self, names: PoolNames, submission: Submission) -> bool:
        """Store one submission; tell whether it was submitted before. Returns when the server has it.

        Raises `QueueFullError` if there is no room for this one, and as `bus.submission.send` does. A cancelled caller
        gives up its own submission only, which may have been stored; one that was not under way yet never is.
        """
        lane = self._lanes.get(names.pool)
        if lane is None:
            lane = self._lanes[names.pool] = _Lane(self._redis, self._url, names)
        return await lane.submit(submission)

    async def close(self) -> None:
        """Stop sending. Whoever still waits is cancelled."""
        for lane in self._lanes.values():
            await lane.close()


class _Lane:
    """The submissions to one pool, in their order."""

    def __init__(self, redis: Redis, url: str, names: PoolNames) -> None:
        self._redis = redis
        self._url = url
        self._names = names
        self._under_way = False
        self._collected: deque[tuple[Submission, asyncio.Future[bool]]] = deque()
        self._sender: asyncio.Task[None] | None = None

    async def submit(self, submission: Submission) -> bool:
        if self._under_way:
            stored: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
            self._collected.append((submission, stored))
            return await stored
        # No task of its own for the one that finds nothing under way: it is the usual case, and pays for nobody else.
        self._under_way = True
        try:
            known, refused = await send(self._redis, self._url, self._names, [submission])
            if refused:
                raise refused[0].error(self._names, submission)
            return bool(known)
        except BusUnavailableError as error:
            self._fail(error)
            raise
        finally:
            if self._collected:
                self._sender = asyncio.create_task(self._send_collected(), name="submissions")
            else:
                self._under_way = False

    async def close(self) -> None:
        if self._sender is not None:
            self._sender.cancel()
            await asyncio.gather(self._sender, return_exceptions=True)
        while self._collected:
            self._collected.popleft()[1].cancel()

    async def _send_collected(self) -> None:
        """Send until nothing is left. It belongs to no caller, so that none of them can stop it."""
        try:
            while self._collected:
                await self._send_part()
        finally:
            self._under_way = False

    async def _send_part(self) -> None:
        collected = [(submission, stored) for submission, stored in self._collected if not stored.cancelled()]
        part = next(in_calls([submission for submission, _ in collected]), ())
        sent = collected[: len(part)]
        self._collected = deque(collected[len(part) :])
        if not part:
            return
        try:
            outcome = await send(self._redis, self._url, self._names, part)
        except Exception as error:  # noqa: BLE001 - it belongs to the callers, all of them
            for _, stored in sent:
                _refuse(stored, error)
            if isinstance(error, BusUnavailableError):
                self._fail(error)
        except BaseException:
            for _, stored in sent:
                stored.cancel()
            raise
        else:
            self._tell(sent, outcome)

    def _tell(self, sent: list[tuple[Submission, asyncio.Future[bool]]], outcome: Sent) -> None:
        """Tell each caller what became of its own submission."""
        for n, (submission, stored) in enumerate(sent):
            if n in outcome.refused:
                _refuse(stored, outcome.refused[n].error(self._names, submission))
            elif not stored.done():
                stored.set_result(n in outcome.known)

    def _fail(self, error: Exception) -> None:
        """Refuse what was collected while the server did not answer: it would not be told so any sooner alone."""
        while self._collected:
            _refuse(self._collected.popleft()[1], error)


def _refuse(stored: asyncio.Future[bool], error: Exception) -> None:
    if not stored.done():
        stored.set_exception(error)
