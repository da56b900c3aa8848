"""The one factory of FastStream brokers, and the framing that FastStream puts around what it publishes.

A broker made here only reads in batches. It is connected, never started: `broker.start()` starts every subscriber
at once, and a `FastStream` app around it would end the process when a consumer group is lost. Who reads, and when,
is the intake's decision.

Left to itself FastStream sleeps five seconds after a lost connection. So the retry is redis-py's: repeating the
blocked read is harmless, because an entry whose delivery was lost stays pending and the intake looks for those.
"""

import asyncio
import logging
import struct
from typing import Any, Final

from faststream.redis import RedisBroker
from faststream.redis.exceptions import StreamGroupNotFoundError
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import NoPermissionError, ResponseError

from bus.connection import CONNECTION_ERRORS, resolve_url, socket_options
from bus.socket_connection import connection_class

_RETRY_CAP: Final = 0.5
_RETRY_BASE: Final = 0.02
_RETRIES: Final = 240
"""About a minute of tries; then FastStream logs the error, sleeps five seconds, and the next minute begins."""

_PASSING: Final[tuple[type[Any], ...]] = (*CONNECTION_ERRORS, NoPermissionError)
"""After any of these FastStream would repeat the read at once, without end and without a pause; so after a missing
permission, too, which only an operator can lift."""

_MAGIC: Final = b"\x89BIN\r\n\x1a\n"
_HEADER: Final = struct.Struct(">8sHII")
_FORMAT_VERSION: Final = 1


class _Expected(logging.Filter):
    """Drop what FastStream reports as an error and is none here."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        # A stop cancels the sink; a lost group is reported by the intake, which heals it without a restart.
        if isinstance(error, asyncio.CancelledError | StreamGroupNotFoundError):
            return False
        # Its stream was deleted while a read was blocked: the next read finds the group gone.
        return not (isinstance(error, ResponseError) and str(error).startswith("UNBLOCKED"))


_EXPECTED: Final = _Expected()


def make_broker(
    url: str | None = None,
    *,
    logger: logging.Logger | None = None,
    name: str = "callboard",
    max_connections: int = 16,
) -> RedisBroker:
    """Make a broker; call its `connect()`, never its `start()`.

    Each subscriber holds one of the `max_connections` while its read is blocked: count the topics and add a few.
    `name` appears in CLIENT LIST. A lost connection is tried again every half second at most, for about a minute;
    other commands through this broker may therefore take as long. `logger` gets what FastStream reports from WARNING
    on, unless it has a level of its own.
    """
    logger = logger or logging.getLogger("callboard.faststream")
    logger.addFilter(_EXPECTED)
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.WARNING)  # each end of a read task is told at INFO
    where = resolve_url(url)
    return RedisBroker(
        where,
        connection_class=connection_class(where),
        client_name=name,
        max_connections=max_connections,
        **socket_options(where),
        retry=Retry(ExponentialWithJitterBackoff(cap=_RETRY_CAP, base=_RETRY_BASE), _RETRIES, _PASSING),
        logger=logger,
        log_level=logging.DEBUG,  # at INFO the two records per message cost 80 µs
        apply_types=False,  # our own parser validates; nothing is injected
        graceful_timeout=None,  # a batch in the sink's hands stays pending: waiting for it only delays a handover
    )


def unframe(raw: bytes) -> bytes:
    """Return the body of a message that `RedisBroker.publish` framed; any other bytes as they are.

    Skips the headers instead of reading them: their lengths are wrong when they are not ASCII, the body's offset
    is right.
    """
    if not raw.startswith(_MAGIC) or len(raw) < _HEADER.size:
        return raw
    _, version, _, body_start = _HEADER.unpack_from(raw)
    return raw[body_start:] if version == _FORMAT_VERSION else raw
