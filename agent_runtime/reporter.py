"""What an agent says of its tasks: one entry in the results stream per flush, however many tasks it speaks of.

When nothing is under way the report of an end leaves at once; while one is being written, what happens is collected for
the next. A task that begins and ends within one flush is one result. An entry whose write failed is sent again as it
was: the leader refuses what it has seen, by the attempt, and the order of entries is kept.

An attempt may be announced before it is begun. Right after the announcement, in the same round trip, the task's record
is read: if the attempt was taken back meanwhile (its event loop was blocked, or the whole process stopped, for so long
that the leader gave the task to another) it is not begun. One that may be tried only once is not begun
either before the leader has read the announcement: see `agent_runtime.acceptance`.
"""

import asyncio
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Final, NamedTuple

from pydantic_core import to_json
from redis.exceptions import NoPermissionError

from agent_runtime.acceptance import Acceptance, Then, is_unread
from agent_runtime.inbox import AttemptKey
from agent_runtime.link import Link
from agent_runtime.observer import RuntimeObserver
from agent_runtime.outcome import Outcome
from bus.backoff import Backoff
from bus.clock import wall_ms
from bus.connection import SERVER_ERRORS, Redis
from bus.messages import MAX_BODY_BYTES, VERSION
from bus.names import DATA_FIELD
from bus.states import TaskStatus

MAX_ITEMS: Final = 500
"""Most items in one entry: what the leader takes in one pass."""

_SECTIONS: Final = (b'"updates":[', b'"results":[', b'"returned":[')
_LIVE: Final = (TaskStatus.ASSIGNED, TaskStatus.RUNNING)


class _Announced(NamedTuple):
    key: AttemptKey
    then: Then
    read: bool


class _Entry(NamedTuple):
    body: bytes
    ended: list[AttemptKey]
    items: int
    then: list["_Announced"]


class Reporter:
    """Collects, and writes from `run`. Used from the event loop only."""

    def __init__(  # noqa: PLR0913 - it speaks for all parts of a worker
        self,
        redis: Redis,
        stream: str,
        *,
        agent_id: str,
        session: str,
        stored: Callable[[Sequence[AttemptKey]], None],
        record: Callable[[str], str],
        link: Link,
        observer: RuntimeObserver,
        limit: int = MAX_BODY_BYTES,
    ) -> None:
        self._redis = redis
        self._stream = stream
        self._head = to_json({"v": VERSION, "agent_id": agent_id, "session": session})[:-1]
        self._session = session
        self._stored = stored
        self._record = record
        self._link = link
        self._observer = observer
        self._room = limit - len(self._head) - sum(len(section) + 2 for section in _SECTIONS) - 1
        self._updates: dict[AttemptKey, dict[str, float | str | None]] = {}
        """What was said of each attempt since the last flush, by the names of `bus.messages.TaskUpdate`."""
        self._results: list[bytes] = []
        self._ended: list[AttemptKey] = []
        """Whose results these are."""
        self._returned: dict[AttemptKey, bytes] = {}
        self._then: dict[AttemptKey, tuple[Then, bool]] = {}
        self._acceptance = Acceptance(redis, record, announce=self._announced_anew, has=self._has)
        self._outgoing: deque[_Entry] = deque()
        self._woken = False
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._backoff = Backoff(base=0.1, cap=2.0)
        self._may_look = True

    def started(self, key: AttemptKey, seconds: float = 0.0, then: Then | None = None, *, read: bool = False) -> None:
        """Say that an attempt has begun, so many seconds ago.

        `then` is called once that, or the attempt's end, is stored, and with `read` once the
        leader has read it: with False if the task is not this attempt's any more, so that it must not begin.
        """
        self._updates.setdefault(key, {}).setdefault("started_at", wall_ms() / 1000 - seconds)
        self._wake()
        if then is not None:
            self._then[key] = then, read

    def progress(self, key: AttemptKey, fraction: float, note: str | None) -> None:
        """Say how far an attempt is; only the latest word is sent."""
        self._say(key, progress=fraction, note=note)

    def extended(self, key: AttemptKey, seconds: float) -> None:
        """Say that an attempt may run so much longer than its run_timeout, counted together."""
        self._say(key, extend=seconds)

    def cancelling(self, key: AttemptKey, step: str) -> None:
        """Say how far the cancel of an attempt is: `delivered`, and `acknowledged` when its code has been told."""
        self._say(key, cancel=step)

    def waiting(self, key: AttemptKey, *, waits: bool) -> None:
        """Say that an attempt waits for its children without its slots, or that it goes on."""
        self._say(key, waiting=waits)

    def finished(self, key: AttemptKey, found: Outcome, seconds: float) -> None:
        """Say how an attempt ended."""
        self._updates.pop(key, None)
        self._results.append(_result(key, found, seconds))
        self._ended.append(key)
        self._wake()

    def returned(self, key: AttemptKey) -> None:
        """Hand back an attempt that was not begun."""
        self._returned[key] = to_json({"task_id": key[0], "attempt": key[1]})
        self._wake()

    async def wait_until_idle(self) -> None:
        """Return when everything that was said is stored."""
        await self._idle.wait()

    async def run(self) -> None:
        """Write what is collected, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._acceptance.run(), name="acceptance")
            await self._write_on()

    async def _write_on(self) -> None:
        while True:
            await self._work.wait()
            if not self._ended and not self._returned:
                # What has begun may end in this moment, and then takes one message instead of two.
                await asyncio.sleep(0)
            self._work.clear()
            self._woken = False
            self._collect()
            while self._outgoing:
                await self._send(self._outgoing[0])
            if not self._woken:
                self._idle.set()

    def _say(self, key: AttemptKey, **words: float | str | None) -> None:
        self._updates.setdefault(key, {}).update(words)
        self._wake()

    def _wake(self) -> None:
        if not self._woken:
            self._woken = True
            self._work.set()
            self._idle.clear()

    async def _send(self, entry: _Entry) -> None:
        began = time.perf_counter()
        try:
            states = await self._write(entry)
        except SERVER_ERRORS as error:
            self._link.failed("reporter", error)
            await asyncio.sleep(self._backoff.next())
            return
        self._outgoing.popleft()
        self._backoff.reset()
        self._link.works("reporter")
        self._observer.reports(entry.items, time.perf_counter() - began)
        self._stored(entry.ended)
        for (key, then, read), state in zip(entry.then, states, strict=True):
            ours = self._has(key, state)
            if read and ours and is_unread(state):
                self._acceptance.wait(key, then)
            else:
                then(ours)

    async def _write(self, entry: _Entry) -> list[bytes | None]:
        """Write an entry; return the states of the tasks that it announces, as they were after that.

        An agent that may not look at records (`callboard acl`) is told None.
        """
        if not entry.then or not self._may_look:
            await self._redis.xadd(self._stream, {DATA_FIELD: entry.body})
            return [None] * len(entry.then)
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.xadd(self._stream, {DATA_FIELD: entry.body})
            for key, _, _ in entry.then:
                pipe.hget(self._record(key[0]), "state")
            written, *states = await pipe.execute(raise_on_error=False)
        for failed in (written, *states):
            if isinstance(failed, NoPermissionError) and failed is not written:
                self._may_look = False
            elif isinstance(failed, Exception):
                raise failed
        return states if self._may_look else [None] * len(entry.then)

    def _announced_anew(self, key: AttemptKey, then: Then) -> None:
        self.started(key, then=then, read=True)

    def _has(self, key: AttemptKey, state: bytes | None) -> bool:
        """Tell whether an attempt is still this session's; one whose record is lost is nobody else's."""
        if state is None:
            return True
        status, attempt, _, session = state.decode().split("/")
        return status in _LIVE and (int(attempt), session) == (key[1], self._session)

    def _collect(self) -> None:
        """Cut what there is to say into entries."""
        updates, results, returned = self._updates, self._results, self._returned
        bodies = [_update(key, said) for key, said in updates.items()]
        counts = len(bodies), len(results), len(returned)
        bodies += results
        bodies += returned.values()
        keys = [*updates, *self._ended, *returned]
        self._updates, self._results, self._ended, self._returned = {}, [], [], {}
        sizes = list(accumulate((len(body) + 1 for body in bodies), initial=0))
        start = 0
        while start < len(bodies):
            fitting = bisect_right(sizes, sizes[start] + self._room) - 1
            stop = min(max(start + 1, fitting), start + MAX_ITEMS)
            self._outgoing.append(self._entry(bodies, keys, counts, start, stop))
            start = stop

    def _entry(
        self, bodies: list[bytes], keys: list[AttemptKey], counts: tuple[int, int, int], start: int, stop: int
    ) -> _Entry:
        """Return the entry of some items; `counts` tells how many updates, results and hand-backs all of them are."""
        parts, begin = [self._head], 0
        for section, count in zip(_SECTIONS, counts, strict=True):
            some = bodies[max(begin, start) : max(0, min(begin + count, stop))]
            if some:
                parts.append(section + b",".join(some) + b"]")
            begin += count
        speaks_of = keys[start:stop]
        ended = speaks_of[max(0, counts[0] - start) :]
        then = [_Announced(key, *self._then.pop(key)) for key in speaks_of if key in self._then] if self._then else []
        return _Entry(b",".join(parts) + b"}", ended, len(speaks_of), then)


def _update(key: AttemptKey, said: dict[str, float | str | None]) -> bytes:
    words = {name: value for name, value in said.items() if value is not None}
    return to_json({"task_id": key[0], "attempt": key[1], **words})


def _result(key: AttemptKey, found: Outcome, seconds: float) -> bytes:
    """Return the JSON of `bus.messages.TaskResult`; ids need no escaping, for they match their pattern."""
    if found.status is TaskStatus.COMPLETED:
        return b'{"task_id":"%b","attempt":%d,"status":"COMPLETED","output":%b,"duration":%.6f}' % (
            key[0].encode(),
            key[1],
            found.output,
            seconds,
        )
    told = {
        "task_id": key[0],
        "attempt": key[1],
        "status": found.status,
        "error": found.error,
        "reason": found.reason,
        "retryable": found.retryable,
        "retry_after": found.retry_after,
        "abandoned": found.abandoned or None,
        "duration": round(seconds, 6),
    }
    return to_json({name: value for name, value in told.items() if value is not None}, inf_nan_mode="constants")
