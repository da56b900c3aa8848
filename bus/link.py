"""A client's way to the bus: its connections, whose names, and how it asks the server and the leader."""

from collections.abc import AsyncGenerator, Awaitable, Iterable, Iterator
from contextlib import aclosing
from time import monotonic
from typing import Any, Final, TypeVar

from pydantic import BaseModel

from bus.clock import wall_ms
from bus.connection import BLOCK_MS, CONNECTION_ERRORS, Redis, connect, resolve_url
from bus.errors import BusAddressError, BusUnavailableError, ClientTooOldError, NoLeaderError
from bus.filters import TaskFilter
from bus.ids import ClientId, TaskId, check_pool, new_client_id, task_pool
from bus.ledger_view import LedgerView
from bus.messages import READS, Explain, Plan, Reply
from bus.names import DATA_FIELD, PoolNames

T = TypeVar("T")

MAX_CONNECTIONS: Final = 16
"""Commands of one client that are under way at a time; each pool that results are awaited in takes one of them."""
ANSWER_S: Final = 3.0
"""How long the leader may take to answer a question: a take-over fits into it."""
IDS_PER_MESSAGE: Final = 1000


class Link:
    """The connections of one client. Raises `ValueError` for a pool that cannot be one, and `BusAddressError`."""

    def __init__(self, url: str | None, pool: str, *, max_connections: int = MAX_CONNECTIONS) -> None:
        self.url = resolve_url(url)
        self.pool = check_pool(pool)
        self.client_id: ClientId = new_client_id()
        try:
            self.redis: Redis = connect(
                self.url, name=f"callboard-client-{self.client_id}", max_connections=max_connections
            )
        except ValueError as error:
            raise BusAddressError(self.url) from error

    def names(self, pool: str | None) -> PoolNames:
        """Return the names of a pool, the client's own for None."""
        return PoolNames(check_pool(pool or self.pool))

    @staticmethod
    def names_of(task_id: str) -> PoolNames:
        """Return the names of a task's pool. Raises `ValueError` if `task_id` is no task's id."""
        return PoolNames(task_pool(task_id))

    def view(self, pool: str | None) -> LedgerView:
        """Return a reader of a pool's ledger."""
        return LedgerView(self.redis, self.names(pool))

    @staticmethod
    def filter(where: TaskFilter | str | None) -> TaskFilter:
        """Return the filter that is meant; in a text, "ago" counts from this machine's clock. Raises `ValueError`."""
        return TaskFilter.parse(where or "", wall_ms()) if not isinstance(where, TaskFilter) else where

    def parts(self, task_ids: Iterable[str]) -> Iterator[tuple[PoolNames, tuple[TaskId, ...]]]:
        """Sort ids by pool, and cut them into what one message may hold."""
        by_pool: dict[PoolNames, list[TaskId]] = {}
        for task_id in task_ids:
            by_pool.setdefault(self.names_of(task_id), []).append(TaskId(task_id))
        for names, ids in by_pool.items():
            for start in range(0, len(ids), IDS_PER_MESSAGE):
                yield names, tuple(ids[start : start + IDS_PER_MESSAGE])

    async def ask(self, asked: Awaitable[T]) -> T:
        """Return what the server answers. Raises `BusUnavailableError`."""
        try:
            return await asked
        except CONNECTION_ERRORS as error:
            raise BusUnavailableError(self.url, str(error)) from error

    async def command(self, names: PoolNames, message: BaseModel) -> None:
        """Write a command for the leader; returns when it is stored."""
        await self.ask(self.redis.xadd(names.commands, {DATA_FIELD: message.model_dump_json()}))

    async def question(self, names: PoolNames, asked: BaseModel, me: ClientId, timeout: float) -> Reply:
        """Write a command that `reply_to` `me` is answered, and return the one answer; as `answers` otherwise."""
        async with aclosing(self.answers(names, asked, me, timeout)) as answers:
            return await anext(answers)

    async def answers(self, names: PoolNames, asked: BaseModel, me: str, timeout: float) -> AsyncGenerator[Reply, None]:
        """Write a command that `reply_to` `me` is answered, and yield the answers; who has the last one stops.

        `me` is made for this question; its stream is gone in a minute. Raises `NoLeaderError` when no further answer
        comes within `timeout` seconds: it says that the command is stored, unless that only asks. Raises
        `ClientTooOldError` for an answer of a version that this program does not read.
        """
        await self.command(names, asked)
        stream = names.replies(me)
        cursor: Any = "0-0"
        until = monotonic() + timeout
        while (left := until - monotonic()) > 0:
            read = self.redis.xread({stream: cursor}, block=max(1, min(BLOCK_MS, int(left * 1000))))
            reply: Any = await self.ask(read)
            for _, entries in reply or ():
                for cursor, fields in entries:  # noqa: B007 - it is where the next read begins
                    yield _understood(names.pool, fields[DATA_FIELD.encode()])
                until = monotonic() + timeout
        raise NoLeaderError(names.pool, timeout, stored=not isinstance(asked, Explain | Plan))


class _Head(BaseModel):
    """What can be read of an answer of whatever version."""

    v: int = 1


def _understood(pool: str, body: bytes) -> Reply:
    version = _Head.model_validate_json(body).v
    if version > READS:
        raise ClientTooOldError(pool, version, READS)
    return Reply.model_validate_json(body)
