"""How one client learns how its tasks ended: one blocked read, however many results it waits for.

The leader writes a task's outcome to the replies stream of whoever submitted or watches it, in the same step as the
outcome itself. Replies are a fast path, not the truth: the stream is capped and short-lived, a reply may have been
written before this client began to watch, a failover may have lost it. So a task that is waited for without news is
looked up in the ledger again and again, at first soon and then every two seconds.

Thousands may wait on the three loops here: nothing that one reply, one record or one refusal of the server says may end
them. What cannot be read is logged; whoever waits for just that is told.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import monotonic
from typing import Any, Final

from pydantic import BaseModel, TypeAdapter
from pydantic_core import from_json

from bus.backoff import Backoff
from bus.connection import BLOCK_MS, CONNECTION_ERRORS, SERVER_ERRORS, Redis
from bus.errors import CallboardError, ClientClosedError, UnknownTaskError, UnreadableTaskError
from bus.ids import ClientId, TaskId
from bus.messages import READS, Outcome, WatchTasks
from bus.names import DATA_FIELD, PoolNames
from bus.outage import is_refusal
from bus.records import CancelOutcome, Guard, Run
from bus.states import TaskPriority, TaskStatus
from bus.waiter import Waiter, Waiters

__all__ = ["Outcomes", "Waiter", "outcome_of"]

LOG = logging.getLogger("callboard.client")

READ_COUNT: Final = 200
FIRST_LOOK_S: Final = 0.25
LOOK_EVERY_S: Final = 2.0
LOOK_AT_ONCE: Final = 500
"""Most tasks looked up in one round trip; the others have their turn in the next."""
UNKNOWN_AFTER_S: Final = 5.0
WATCH_AT_ONCE: Final = 1000
"""Most tasks of one `WatchTasks`: as many as it takes."""
TICK_S: Final = 0.25

_DATA: Final = DATA_FIELD.encode()


class _Told(BaseModel):
    """What of a reply says how tasks ended."""

    v: int = 1
    outcomes: tuple[Outcome, ...]


_REPLY: Final = TypeAdapter(_Told)


class Outcomes:
    """The outcomes of one client's tasks in one pool. Its loops run from the first `wait_for` to `close`."""

    def __init__(self, redis: Redis, names: PoolNames, client_id: ClientId) -> None:
        self._redis = redis
        self._names = names
        self._client_id = client_id
        self._stream = names.replies(client_id)
        self._cursor = b"0-0"
        self._waiters = Waiters()
        self.new_waiter: Final = self._waiters.new
        """Returns the first waiter of a task that was just submitted."""
        self._untrimmed = 0
        """Replies that were read, and are still in the stream."""
        self._unwatched: list[TaskId] = []
        self._watch_wanted = asyncio.Event()
        self._loops: list[asyncio.Task[None]] = []

    def waiter(self, task_id: TaskId) -> Waiter:
        """Return the waiter of a task; it lives as long as somebody holds it.

        One that was told of a failure is not handed out again: the task may have been requeued since.
        """
        return self._waiters.of(task_id)

    def wait_for(self, waiter: Waiter, *, watch: bool) -> None:
        """Start to look out for the outcome of `waiter`; `watch` has the leader asked to tell this client of it."""
        if not self._loops:
            self._loops = [
                asyncio.create_task(self._keep("read the replies", self._read), name="replies"),
                asyncio.create_task(self._keep("look up tasks", self._look), name="look"),
                asyncio.create_task(self._keep("ask for replies", self._watch), name="watch"),
            ]
        if waiter.waited_for or waiter.done:
            return
        waiter.waited_for = True
        now = monotonic()
        waiter.look_at = now if watch else now + LOOK_EVERY_S
        if watch:
            self._unwatched.append(waiter.task_id)
            self._watch_wanted.set()

    async def close(self) -> None:
        """Stop the loops. Whoever still waits is told so, by `ClientClosedError`."""
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        for waiter in self._waiters.all():
            waiter.tell(ClientClosedError(waiter.task_id))
        with suppress(*SERVER_ERRORS):  # it expires by itself
            await self._redis.delete(self._stream)

    async def _keep(self, what: str, step: Callable[[], Awaitable[None]]) -> None:
        """Repeat `step` until cancelled, come what may."""
        backoff = Backoff(base=0.05, cap=1.0)
        away = False
        while True:
            try:
                await step()
            except Exception as error:
                if is_refusal(error) or not isinstance(error, CONNECTION_ERRORS):
                    LOG.exception("could not %s, trying on", what)
                elif not away:
                    away = True
                    LOG.warning("the server does not serve, waiting goes on: %s", error)
                await asyncio.sleep(backoff.next())
            else:
                away = False
                backoff.reset()

    # --- replies

    async def _watch(self) -> None:
        """Ask for the tasks that somebody else has submitted: all of one moment in one message."""
        await self._watch_wanted.wait()
        while self._unwatched:
            part = self._unwatched[:WATCH_AT_ONCE]
            message = WatchTasks(task_ids=tuple(part), reply_to=self._client_id)
            await self._redis.xadd(self._names.commands, {DATA_FIELD: message.model_dump_json()})
            del self._unwatched[: len(part)]
        self._watch_wanted.clear()

    async def _read(self) -> None:
        reply: Any = await self._redis.xread({self._stream: self._cursor}, count=READ_COUNT, block=BLOCK_MS)
        for _, entries in reply or ():
            self._untrimmed += len(entries)
            elsewhere: list[Waiter] = []
            for entry_id, fields in entries:
                self._cursor = entry_id
                elsewhere += self._take(entry_id, fields)
            if elsewhere:
                await self._look_up(elsewhere)
        # A result is not kept waiting for what was read to be removed: that is done for many, or when nothing comes.
        if self._untrimmed >= (READ_COUNT if reply else 1):
            await self._redis.xtrim(self._stream, minid=self._cursor.decode(), approximate=False)
            self._untrimmed = 0
        elif reply:
            await asyncio.sleep(0)  # nor for the next read to be asked for

    def _take(self, entry_id: bytes, fields: dict[bytes, bytes]) -> list[Waiter]:
        """Take the outcomes of one entry; return those whose output was too large to be told and is in the ledger."""
        try:
            reply = _REPLY.validate_json(fields[_DATA])
        except (ValueError, KeyError) as error:
            return self._take_what_can_be_read(entry_id, fields, error)
        if reply.v > READS:
            self._not_understood(entry_id, f"it is of version {reply.v}, and this client reads {READS}")
            return []
        return [waiter for outcome in reply.outcomes if (waiter := self._told(outcome)) is not None]

    def _told(self, outcome: Outcome) -> Waiter | None:
        """Tell whoever waits for this outcome; return the waiter if the output is in the ledger."""
        waiter = self._waiters.get(outcome.task_id)
        if waiter is None or waiter.done:
            return None
        if outcome.output_in_ledger:
            return waiter
        waiter.tell(outcome)
        return None

    def _take_what_can_be_read(self, entry_id: bytes, fields: dict[bytes, bytes], problem: Exception) -> list[Waiter]:
        """Take the outcomes of an entry one by one, because not all of it can be understood."""
        elsewhere: list[Waiter] = []
        try:
            reply = from_json(fields[_DATA])
            if (version := reply.get("v", 1)) > READS:
                raise ValueError(f"it is of version {version}, and this client reads {READS}")  # noqa: TRY301
            outcomes = list(reply["outcomes"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self._not_understood(entry_id, repr(error))
            return elsewhere
        LOG.error("cannot understand all of a reply, looking in the ledger: %r", problem)
        for raw in outcomes:
            with suppress(ValueError, KeyError, TypeError):
                waiter = self._told(Outcome.model_validate(raw))
                elsewhere += () if waiter is None else (waiter,)
        self._look_soon()
        return elsewhere

    def _not_understood(self, entry_id: bytes, why: str) -> None:
        LOG.error("cannot understand reply %s, looking in the ledger: %s", entry_id.decode(), why)
        self._look_soon()

    # --- the ledger

    def _look_soon(self) -> None:
        for waiter in self._waiters.open():
            waiter.look_at = 0.0

    async def _look(self) -> None:
        """Look up, from time to time, those that are waited for without news."""
        await asyncio.sleep(TICK_S)
        now = monotonic()
        due = sorted((w for w in self._waiters.open() if w.look_at <= now), key=lambda w: w.look_at)[:LOOK_AT_ONCE]
        if not due:
            return
        # Never due again at once, also when this fails: the others have their turn.
        for waiter in due:
            waiter.look_at = now + (FIRST_LOOK_S if now - waiter.added < LOOK_EVERY_S else LOOK_EVERY_S)
        await self._look_up(due)

    async def _look_up(self, due: list[Waiter]) -> None:
        """Tell those of `due` whose tasks have ended, are unknown, or cannot be read.

        The intake streams are counted *before* the records are read, in one pipeline, which the server runs in its
        order. A submission leaves its stream in the same step that makes its record: whatever is in none of the streams
        then has its record already when that is read. (Counted afterwards, a task that was accepted between the two
        would be in neither.)
        """
        names = self._names
        async with self._redis.pipeline(transaction=False) as pipe:
            for level in TaskPriority:
                pipe.xlen(names.submissions(level))
            for waiter in due:
                pipe.hmget(names.task(waiter.task_id), ["state", "run", "result"])
            rows: list[Any] = await pipe.execute(raise_on_error=False)
        unread, records = rows[: len(TaskPriority)], rows[len(TaskPriority) :]
        for row in rows:
            if isinstance(row, Exception) and not is_refusal(row):
                raise row
        for waiter, row in zip(due, records, strict=True):
            if not waiter.done:
                self._judge(waiter, row, unread)

    def _judge(self, waiter: Waiter, row: Any, unread: list[Any]) -> None:  # noqa: ANN401 - see `outcome_of`
        try:
            found = outcome_of(waiter.task_id, row)
        except UnknownTaskError as error:
            # A count that was refused is no nothing: then nobody is told that a task is unknown.
            if unread == [0] * len(unread) and monotonic() - waiter.added > UNKNOWN_AFTER_S:
                self._give_up(waiter, error)
        except Exception as error:
            LOG.exception("cannot read the record of task %s", waiter.task_id)
            self._give_up(waiter, UnreadableTaskError(waiter.task_id, str(error) or repr(error)))
        else:
            if found is not None:
                waiter.tell(found)

    def _give_up(self, waiter: Waiter, error: CallboardError) -> None:
        self._waiters.forget(waiter.task_id)  # a new handle may try anew
        waiter.tell(error)


def outcome_of(task_id: TaskId, row: Any) -> Outcome | None:  # noqa: ANN401 - what the server says, an error included
    """Return the outcome that a record's state, run and result tell, just as the leader tells it; None before the end.

    Raises `UnknownTaskError` if there is no record, and almost anything if it cannot be read.
    """
    if isinstance(row, Exception):
        raise row
    state, run, result = row
    if state is None:
        raise UnknownTaskError(task_id)
    guard = Guard.parse(state.decode())
    if not guard.status.terminal:
        return None
    told = Run.model_validate_json(run)
    # Only an attempt that ended with its task was ended by it: a task may also be cancelled, or expire, between two.
    last = told.attempts[-1] if told.attempts and told.attempts[-1].ended_at == told.finished_at else None
    return Outcome(
        task_id=task_id,
        status=guard.status,
        attempt=guard.attempt,
        agent_id=last.agent_id if last else None,
        output=None if result is None else from_json(result),
        error=told.error,
        reason=told.reason,
        by=told.cancellation.by or None if told.cancellation and guard.status is TaskStatus.CANCELLED else None,
        given_up=told.cancellation is not None and told.cancellation.outcome is CancelOutcome.GIVEN_UP,
    )
