"""Commands in flight on one connection: sent one after the other, their replies read later and in the same order.

redis-py's pipeline packs all of its commands before it sends the first. Here the server works on one while the next is
still being made, which is what a commit of several calls is about. Whether a command may run when the one before it
failed is not decided here: scripts that must run in order check it themselves.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ResponseError

from bus.connection import Redis


class Flight:
    """One connection, for as long as `in_flight` lasts. Not safe for concurrent use."""

    __slots__ = ("_connection", "pending")

    def __init__(self, connection: AbstractConnection) -> None:
        self._connection = connection
        self.pending = 0
        """Commands whose replies have not been read."""

    async def send(self, *command: Any) -> None:
        """Send a command; returns when it is on its way. Raises redis-py's connection errors."""
        await self._connection.send_command(*command)
        self.pending += 1

    async def reply(self) -> Any:  # noqa: ANN401 - each command has a reply of its own
        """Return the oldest reply that was not read, unconverted; one that is an error is returned, too.

        Raises redis-py's connection errors: what came of this command and those behind it is unknown then.
        """
        self.pending -= 1
        try:
            return await self._connection.read_response()
        except ResponseError as error:
            return error


@asynccontextmanager
async def in_flight(redis: Redis) -> AsyncIterator[Flight]:
    """Take a connection of `redis` for commands that are sent before the replies to earlier ones are read.

    Waits for a free connection. When the block ends with replies unread, by an error or a cancellation, the connection
    is closed, since the next user of it would read them.
    """
    pool = redis.connection_pool
    connection = await pool.get_connection()  # type: ignore[no-untyped-call]
    flight = Flight(connection)
    try:
        yield flight
    finally:
        if flight.pending:
            await connection.disconnect(nowait=True)
        await pool.release(connection)
