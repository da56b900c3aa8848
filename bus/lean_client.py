"""redis-py's client and pool without what nobody uses here: half of what a single command costs.

redis-py takes a lock and a condition for each connection that it lends and takes back, asks its listeners, counts for
OpenTelemetry, and wraps each command in its retries, which are switched off (`bus.connection`). Here a connection that
is idle and well is lent at once; for everything else (none is idle, one is to be connected anew, others queue already)
it is redis-py's own way.
"""

from collections.abc import Mapping
from inspect import isawaitable
from typing import Any

import redis.asyncio
from redis.asyncio.connection import AbstractConnection


class LeanPool(redis.asyncio.BlockingConnectionPool):
    """Lends connections; callers beyond the most that there may be wait, in their order."""

    _queueing = 0
    """How many go redis-py's way now, some of whom wait."""

    async def get_connection(self, *_: object, **__: object) -> AbstractConnection:
        """Lend a connection that can be used."""
        if self._available_connections and not self._queueing:
            idle = self._available_connections[-1]
            # Not one that was closed, or on which something was left to be read.
            if idle.is_clean():  # type: ignore[attr-defined] # of all that `bus.socket_connection` makes
                self._available_connections.pop()
                self._in_use_connections.add(idle)
                return idle
        self._queueing += 1
        try:
            lent: AbstractConnection = await super().get_connection()  # type: ignore[no-untyped-call]
            return lent
        finally:
            self._queueing -= 1

    async def release(self, connection: AbstractConnection) -> None:
        """Take a connection back."""
        if self._queueing or connection.should_reconnect():  # type: ignore[no-untyped-call]
            await super().release(connection)
        else:
            self._in_use_connections.remove(connection)
            self._available_connections.append(connection)


class LeanRedis(redis.asyncio.Redis):
    """A client on a `LeanPool` whose commands are never retried."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - redis-py's signature
        """Run one command on a connection of its own, and return the reply as redis-py makes it."""
        pool = self.connection_pool
        connection = await pool.get_connection()  # type: ignore[no-untyped-call]
        try:
            await connection.send_packed_command(connection.pack_command(*args))
            options.pop("keys", None)  # for redis-py's cache, which nobody uses here
            if options:
                return await self.parse_response(connection, args[0], **options)
            reply = await connection.read_response()
        finally:
            await pool.release(connection)
        made_of = self.response_callbacks.get(args[0])
        if made_of is None:
            return reply
        made = made_of(reply)
        return await made if isawaitable(made) else made

    def xread(  # type: ignore[override]
        self,
        streams: Mapping[Any, Any],
        count: int | None = None,
        block: int | None = None,
        **others: Any,
    ) -> Any:  # noqa: ANN401 - redis-py's signature
        """Read streams as redis-py does, without looking at each value that the server looks at, too."""
        if others:
            return super().xread(dict(streams), count, block, **others)
        pieces: list[Any] = [] if block is None else ["BLOCK", block]
        if count is not None:
            pieces += ("COUNT", count)
        return self.execute_command("XREAD", *pieces, "STREAMS", *streams, *streams.values())
