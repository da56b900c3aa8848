"""A client of a real server through which a test sees each command, and lets its process die or its replies be lost."""

from collections.abc import Callable
from typing import Any

from redis.asyncio import Redis

Tap = Callable[[tuple[Any, ...]], None]


def let_pass(_args: tuple[Any, ...]) -> None:
    """Do nothing."""


class Tapped:
    """Commands of `redis`, one by one or in flight; `before` each is sent, and `after` its reply has come.

    A tap that raises takes the place of what would have happened. Whatever was sent by then is done by the server.
    """

    def __init__(self, redis: Redis, *, before: Tap = let_pass, after: Tap = let_pass) -> None:
        self._redis = redis
        self.before, self.after = before, after

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command and return its reply."""
        self.before(args)
        reply = await self._redis.execute_command(*args, **options)  # type: ignore[no-untyped-call]
        self.after(args)
        return reply

    @property
    def connection_pool(self) -> "Tapped":
        """Stand in for the pool, too."""
        return self

    async def get_connection(self) -> "_Connection":
        """Take a connection."""
        return _Connection(self, await self._redis.connection_pool.get_connection())  # type: ignore[no-untyped-call]

    async def release(self, connection: "_Connection") -> None:
        """Give a connection back."""
        await self._redis.connection_pool.release(connection.real)


class _Connection:
    def __init__(self, tapped: Tapped, real: Any) -> None:
        self.real = real
        self._tapped = tapped
        self._sent: list[tuple[Any, ...]] = []

    async def send_command(self, *args: Any) -> None:
        try:
            self._tapped.before(args)
        except BaseException:
            for _ in self._sent:
                await self.real.read_response()
            raise
        await self.real.send_command(*args)
        self._sent.append(args)

    async def read_response(self) -> Any:
        reply = await self.real.read_response()
        args = self._sent.pop(0)
        try:
            self._tapped.after(args)
        except BaseException:
            for _ in self._sent:
                await self.real.read_response()
            raise
        return reply

    async def disconnect(self, nowait: bool = False) -> None:  # noqa: FBT002 - redis-py's signature
        await self.real.disconnect(nowait=nowait)


class DiedError(Exception):
    """The leader's process has ended, for a test."""


class Life:
    """A tap: the process dies before the call after so many; None: it lives on."""

    def __init__(self, left: int | None = None) -> None:
        self.left = left

    def __call__(self, _args: tuple[Any, ...]) -> None:
        """Let a command pass, or die."""
        if self.left is not None:
            if not self.left:
                raise DiedError
            self.left -= 1
