"""redis-py's connections with four things made better: cancelling, packing, waiting, telling what a refusal means.

*Cancelling.* redis-py wraps each write in `asyncio.wait_for`, which before Python 3.12 swallows a cancellation that
arrives as the write ends. (Of a hundred commands cancelled at random moments twenty to fifty went on as if nothing
had happened.) A loop that is stopped by cancelling would then never stop. `asyncio.timeout` has no such hole, and
needs no task per write.

*Packing.* redis-py's asynchronous connections write each command with Python code, its synchronous ones with hiredis'
C code when that is installed. A commit of a hundred tasks has 1,400 arguments: packing them was two fifths of all
that a dispatcher under load did.

*Waiting.* redis-py makes a timer for each reply. Here a connection has one, which looks now and then whether a reply is
overdue: an idle one has none.

*Telling.* Some replies that mean "not now" have no class of their own in redis-py: here they have, see `bus.outage`.
"""

import asyncio
from collections.abc import Iterable
from functools import cache
from typing import Any, Final
from urllib.parse import urlsplit

import hiredis
import redis.exceptions
from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    DefaultParser,
    SSLConnection,
    UnixDomainSocketConnection,
)

from bus.outage import telling_parser

_PARSER: Final = telling_parser(DefaultParser)
_AT_ONCE: Final = 32 * 1024
"""Half of what a transport holds before it asks its writers to wait."""
_LATE_S: Final = 0.25
"""A timer that rings so much too late tells of a blocked event loop, which is given as much to read what is there."""


class _Improved(AbstractConnection):
    """Mixed into each kind of connection."""

    _overdue_at: float | None = None
    """When the reply that is awaited now is overdue, by the event loop's clock."""
    _watched: asyncio.StreamReader | None = None
    """The stream that a timer looks at now and then."""

    def set_parser(self, parser_class: type[Any]) -> None:  # noqa: ARG002 - redis-py's signature
        """Use the one parser that tells a passing refusal from a lasting one; it speaks every protocol."""
        super().set_parser(_PARSER)

    def pack_command(self, *args: Any) -> list[bytes]:
        """Return the command in the server's protocol; as redis-py does it, but in C."""
        name = args[0]
        if isinstance(name, str):
            args = (*name.encode().split(), *args[1:]) if " " in name else args
        elif b" " in name:
            args = (*name.split(), *args[1:])
        try:
            return [hiredis.pack_command(args)]
        except TypeError:  # views of memory; or what cannot be sent, which redis-py explains
            return super().pack_command(name, *args[1:])

    def is_clean(self) -> bool:
        """Tell whether a command may be sent at once: connected, and nothing is there to be read, not even an end."""
        stream, parser = self._reader, self._parser
        # What redis-py's own `can_read` looks at.
        return (
            stream is not None
            and self._writer is not None
            and not (stream._buffer or stream._eof or parser._reader.has_data())  # type: ignore[attr-defined] # noqa: SLF001
        )

    async def send_packed_command(
        self,
        command: bytes | str | Iterable[bytes],
        check_health: bool = True,  # noqa: FBT001, FBT002 - redis-py's signature
    ) -> None:
        """Write a packed command; as redis-py does it, but for the timeout."""
        if not self.is_connected:
            await self.connect_check_health(check_health=False)
        if check_health and self.health_check_interval:
            await self.check_health()  # type: ignore[no-untyped-call]
        if isinstance(command, str):
            command = command.encode()
        if isinstance(command, bytes):
            command = [command]
        try:
            writer: asyncio.StreamWriter = self._writer  # type: ignore[assignment] # connected, see above
            writer.write(b"".join(command))
            # What the transport takes without a pause is on its way; a lost connection is found by reading the reply.
            if writer.transport.get_write_buffer_size() > _AT_ONCE:
                async with asyncio.timeout(self.socket_timeout):
                    await writer.drain()
        except TimeoutError:
            await self.disconnect(nowait=True)
            raise redis.exceptions.TimeoutError("Timeout writing to socket") from None
        except OSError as error:
            await self.disconnect(nowait=True)
            raise redis.exceptions.ConnectionError(f"Error while writing to socket: {error}") from error
        except BaseException:
            # Half a command may have been written: the connection cannot be used any more.
            await self.disconnect(nowait=True)
            raise

    async def read_response(
        self,
        disable_decoding: bool = False,  # noqa: FBT001, FBT002 - redis-py's signature
        timeout: float | None = None,
        *,
        disconnect_on_error: bool = True,
        push_request: bool | None = False,
    ) -> Any:  # noqa: ANN401 - any reply
        """Read a reply; as redis-py does it, but that nothing is prepared for the case that it fails."""
        if disable_decoding or timeout is not None or push_request or not self.socket_timeout:
            return await super().read_response(
                disable_decoding, timeout, disconnect_on_error=disconnect_on_error, push_request=push_request
            )
        try:
            self._watch(self.socket_timeout)
            reply = await self._parser.read_response()  # type: ignore[attr-defined] # of all parsers
        except BaseException as error:
            if disconnect_on_error:
                await self.disconnect(nowait=True)
            if isinstance(error, TimeoutError):
                raise redis.exceptions.TimeoutError(f"Timeout reading from {self._host_error()}") from None
            if isinstance(error, OSError):
                where = self._host_error()
                raise redis.exceptions.ConnectionError(f"Error while reading from {where} : {error.args}") from error
            raise
        finally:
            self._overdue_at = None
        if isinstance(reply, redis.exceptions.ResponseError):
            raise reply from None
        return reply

    def _watch(self, timeout: float) -> None:
        """Have the reader of the next reply told when it is overdue."""
        loop = asyncio.get_running_loop()
        overdue_at = self._overdue_at = loop.time() + timeout
        stream = self._reader
        if stream is not self._watched and stream is not None:
            self._watched = stream
            loop.call_at(overdue_at, self._look, loop, stream)

    def _look(self, loop: asyncio.AbstractEventLoop, stream: asyncio.StreamReader) -> None:
        if stream is not self._watched:
            return  # this one has ended
        overdue_at = self._overdue_at
        if overdue_at is None:
            self._watched = None
        elif loop.time() < overdue_at:
            loop.call_at(overdue_at, self._look, loop, stream)
        elif loop.time() > overdue_at + _LATE_S:
            # The event loop was blocked, and the reply may lie there unread: that is no silence of the server.
            self._overdue_at = loop.time() + _LATE_S
            loop.call_at(self._overdue_at, self._look, loop, stream)
        else:
            self._watched = None
            stream.set_exception(TimeoutError())


@cache
def connection_class(url: str) -> type[Connection]:
    """Return the class of connections for `url`."""
    kinds: dict[str, type] = {"unix": UnixDomainSocketConnection, "rediss": SSLConnection}
    kind = kinds.get(urlsplit(url).scheme, Connection)
    return type(f"Improved{kind.__name__}", (_Improved, kind), {})
