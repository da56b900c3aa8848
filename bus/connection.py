"""The one factory of redis-py clients, and where a server is looked for.

redis-py retries each command ten times by default, which doubles writes whose reply was lost and hides a dead server
for many seconds. Clients made here never retry by themselves: whoever sends a write knows whether repeating it is
harmless. Every client has timeouts, so that nothing hangs in the failover that it exists to repair.
"""

import os
from typing import Any, Final

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.connection import DefaultParser
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from bus.lean_client import LeanPool, LeanRedis
from bus.outage import CONNECTION_ERRORS, SERVER_ERRORS, telling_parser
from bus.socket_connection import connection_class

__all__ = [
    "BLOCK_MS",
    "CONNECTION_ERRORS",
    "SERVER_ERRORS",
    "Redis",
    "connect",
    "connect_blocking",
    "resolve_url",
    "socket_options",
]

DEFAULT_PORT: Final = 6390
DEFAULT_URL: Final = f"redis://127.0.0.1:{DEFAULT_PORT}/0"
URL_VARIABLE: Final = "CALLBOARD_REDIS_URL"

BLOCK_MS: Final = 1000
"""How long a read may wait at the server: well below the socket's timeout and half a leader's lease."""

SOCKET_TIMEOUT: Final = 5.0
CONNECT_TIMEOUT: Final = 3.0

_PARSER: Final = telling_parser(DefaultParser)

_NO_NOTICES: Final = MaintNotificationsConfig(enabled=False)
"""A service's notices of its maintenance; redis-py asks for them by default. While it may get any, its pools take a
connection that the server has closed for one with a notice to read, and the next command on it fails."""

Redis = redis.asyncio.Redis
"""The asynchronous client that the whole of Callboard uses; replies are bytes."""


def resolve_url(url: str | None = None) -> str:
    """Return `url`, else what CALLBOARD_REDIS_URL says, else where `callboard up` listens."""
    return url or os.environ.get(URL_VARIABLE) or DEFAULT_URL


def socket_options(url: str) -> dict[str, Any]:
    """Return the timeouts of every asynchronous connection to `url`, in redis-py's words."""
    options: dict[str, Any] = {"socket_timeout": SOCKET_TIMEOUT, "socket_connect_timeout": CONNECT_TIMEOUT}
    return options if url.startswith("unix:") else options | {"socket_keepalive": True}


def connect(url: str | None = None, *, name: str, max_connections: int = 16) -> Redis:
    """Make an asynchronous client; it connects when first used and never retries by itself.

    `name` appears in CLIENT LIST. At most `max_connections` commands are under way at a time, blocked reads among them;
    others wait for their turn. Commands raise `redis.ConnectionError` or `redis.TimeoutError` within
    `SOCKET_TIMEOUT` seconds. The caller closes it with `aclose()`.
    """
    where = resolve_url(url)
    # Callers beyond `max_connections` wait for a connection; redis-py's usual pool would refuse them.
    pool = LeanPool.from_url(
        where,
        client_name=name,
        max_connections=max_connections,
        timeout=None,
        maint_notifications_config=_NO_NOTICES,
        **socket_options(where),
        retry=AsyncRetry(NoBackoff(), 0),
        decode_responses=False,
    )
    pool.connection_class = connection_class(where)
    return LeanRedis.from_pool(pool)


def connect_blocking(url: str | None = None, *, name: str, timeout: float) -> redis.Redis:
    """Make a synchronous client for a thread of its own; each command fails after `timeout` seconds."""
    return redis.Redis.from_url(
        resolve_url(url),
        client_name=name,
        max_connections=1,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        maint_notifications_config=_NO_NOTICES,
        retry=Retry(NoBackoff(), 0),
        parser_class=_PARSER,
        decode_responses=False,
    )
