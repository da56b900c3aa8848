"""How one client learns how its tasks ended: one blocked read, however many results it waits for.

The leader writes a task's outcome to the replies stream of whoever submitted or watches it, in the same step as the
outcome itself. Replies are a fast path, not the truth: the stream is capped and short-lived, a reply may have been
written before this client began to watch, a failover may have lost it. So a task that is waited for without news is
looked up in the ledger again and again, at first soon and then every two seconds.
"""

import asyncio
import logging
from collections.abc import Iterable
from contextlib import suppress
from time import monotonic
from typing import Any, Final
from weakref import WeakValueDictionary

from pydantic_core import from_json

from bus.connection import BLOCK_MS, CONNECTION_ERRORS, Redis
from bus.errors import UnknownTaskError
from bus.ids import ClientId, TaskId
from bus.messages import Outcome, WatchTasks
from bus.names import DATA_FIELD, PoolNames
from bus.records import Guard, Run
from bus.states import TaskPriority, TaskStatus

LOG = logging.getLogger("callboard.client")

READ_COUNT: Final = 200
FIRST_LOOK_S: Final = 0.25
LOOK_EVERY_S: Final = 2.0
LOOK_AT_ONCE: Final = 500
"""Most tasks looked up in one round trip; the others have their turn in the next."""
UNKNOWN_AFTER_S: Final = 5.0
RECONNECT_MAX_S: Final = 1.0
TICK_S: Final = 0.25

_DATA: Final = DATA_FIELD.encode()


class Waiter:
    """One task that somebody may wait for. `outcome` is done once it is known how the task ended."""

    __slots__ = ("__weakref__", "added", "look_at", "outcome", "task_id", "waited_for")

    def __init__(self, task_id: TaskId) -> None:
        self.task_id = task_id
        self.outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.added = monotonic()
        self.look_at = 0.0
        self.waited_for = False


class Outcomes:
    """The outcomes of one client's tasks in one pool. Its two loops run from the first `wait_for` to `close`."""

    def __init__(self, redis: Redis, names: PoolNames, client_id: ClientId) -> None:
        self._redis = redis
        self._names = names
        self._client_id = client_id
        self._stream = names.replies(client_id)
        self._waiters: WeakValueDictionary[TaskId, Waiter] = WeakValueDictionary()
        self._loops: list[asyncio.Task[None]] = []

    def waiter(self, task_id: TaskId) -> Waiter:
        """Return the waiter of a task; it lives as long as somebody holds it."""
        waiter = self._waiters.get(task_id)
        if waiter is None:
            waiter = self._waiters[task_id] = Waiter(task_id)
        return waiter

    async def wait_for(self, waiters: Iterable[Waiter], *, watch: bool) -> None:
        """Start to look out for the outcomes of `waiters`; `watch` asks the leader to tell this client of them."""
        now = monotonic()
        fresh = [waiter for waiter in waiters if not waiter.waited_for and not waiter.outcome.done()]
        for waiter in fresh:
            waiter.waited_for = True
            waiter.look_at = now if watch else now + LOOK_EVERY_S
        if not self._loops:
            self._loops = [
                asyncio.create_task(self._read(), name="replies"),
                asyncio.create_task(self._look(), name="look"),
            ]
        if watch and fresh:
            message = WatchTasks(task_ids=tuple(w.task_id for w in fresh), reply_to=self._client_id)
            with suppress(*CONNECTION_ERRORS):  # looked up in the ledger then
                await self._redis.xadd(self._names.commands, {DATA_FIELD: message.model_dump_json()})

    async def close(self) -> None:
        """Stop the loops. Whoever still waits is cancelled."""
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        for waiter in list(self._waiters.values()):
            waiter.outcome.cancel()
        with suppress(*CONNECTION_ERRORS):
            await self._redis.delete(self._stream)

    # --- replies

    async def _read(self) -> None:
        cursor: bytes = b"0-0"
        pause = 0.0
        while True:
            try:
                await asyncio.sleep(pause)
                reply: Any = await self._redis.xread({self._stream: cursor}, count=READ_COUNT, block=BLOCK_MS)
                pause = 0.0
                for _, entries in reply or ():
                    elsewhere = [waiter for _, fields in entries for waiter in self._take(fields[_DATA])]
                    if elsewhere:
                        await self._look_up(elsewhere)
                    cursor = entries[-1][0]
                    await self._redis.xtrim(self._stream, minid=cursor.decode(), approximate=False)
            except CONNECTION_ERRORS as error:
                if not pause:
                    LOG.warning("the server does not answer, waiting goes on: %s", error)
                pause = min(RECONNECT_MAX_S, max(0.05, pause * 2))

    def _take(self, body: bytes) -> list[Waiter]:
        """Take the outcomes of one entry; return who is told that his task's output is in the ledger only."""
        elsewhere: list[Waiter] = []
        for raw in from_json(body)["outcomes"]:
            waiter = self._waiters.get(raw["task_id"])
            if waiter is not None and not waiter.outcome.done():
                if raw.get("output_in_ledger"):
                    elsewhere.append(waiter)
                else:
                    waiter.outcome.set_result(Outcome.model_validate(raw))
        return elsewhere

    # --- the ledger

    async def _look(self) -> None:
        """Look up, from time to time, those that are waited for without news."""
        while True:
            await asyncio.sleep(TICK_S)
            now = monotonic()
            waiting = [w for w in list(self._waiters.values()) if w.waited_for and not w.outcome.done()]
            due = sorted((w for w in waiting if w.look_at <= now), key=lambda w: w.look_at)[:LOOK_AT_ONCE]
            if due:
                with suppress(*CONNECTION_ERRORS):
                    await self._look_up(due)
                    for waiter in due:
                        soon = monotonic() - waiter.added < LOOK_EVERY_S
                        waiter.look_at = monotonic() + (FIRST_LOOK_S if soon else LOOK_EVERY_S)

    async def _look_up(self, due: list[Waiter]) -> None:
        names = self._names
        async with self._redis.pipeline(transaction=False) as pipe:
            for waiter in due:
                pipe.hmget(names.task(waiter.task_id), ["state", "run", "result"])
            for level in TaskPriority:
                pipe.xlen(names.submissions(level))
            rows: list[Any] = await pipe.execute()
        unread = sum(rows[len(due) :])
        for waiter, (state, run, result) in zip(due, rows, strict=False):
            if state is None:
                overdue = monotonic() - waiter.added > UNKNOWN_AFTER_S
                if overdue and not unread and not waiter.outcome.done():
                    waiter.outcome.set_exception(UnknownTaskError(waiter.task_id))
                    waiter.outcome.exception()  # seen: nobody need be waiting
                continue
            guard = Guard.parse(state.decode())
            if guard.status.terminal and not waiter.outcome.done():
                waiter.outcome.set_result(_outcome(waiter.task_id, guard.status, run, result))


def _outcome(task_id: TaskId, status: TaskStatus, run: bytes, result: bytes | None) -> Outcome:
    told = Run.model_validate_json(run)
    last = told.attempts[-1] if told.attempts else None
    return Outcome(
        task_id=task_id,
        status=status,
        attempt=last.attempt if last else 0,
        agent_id=last.agent_id if last else None,
        output=None if result is None else from_json(result),
        error=told.error,
        reason=told.reason,
    )
