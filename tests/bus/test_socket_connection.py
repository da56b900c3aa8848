import asyncio
from time import monotonic, sleep
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.connection import Connection
from redis.exceptions import DataError
from redis.exceptions import TimeoutError as ReplyOverdueError

from bus.connection import connect
from bus.socket_connection import connection_class
from tests.support.waiting import eventually


async def test_a_command_that_is_cancelled_at_any_moment_is_cancelled(redis_url: str) -> None:
    """Seen failing with redis-py's own connections: on Python 3.11 more than half of these were swallowed."""
    for moment in range(40):
        client = connect(redis_url, name="test")

        async def work(client: object = client) -> None:
            for _ in range(20):
                await client.xlen("nothing")  # type: ignore[attr-defined]

        working = asyncio.create_task(work())
        for _ in range(moment):
            await asyncio.sleep(0)
        if not working.done():
            working.cancel()
            with pytest.raises(asyncio.CancelledError):
                await working
        await client.aclose()


async def test_a_connection_that_the_server_has_closed_is_not_used_again(redis: Redis, redis_url: str) -> None:
    """Seen failing with redis-py's own settings: each command on one of them failed, though the server was well."""
    async with connect(redis_url, name="victim", max_connections=4) as client:
        await asyncio.gather(*(client.ping() for _ in range(4)))
        for entry in await redis.client_list():
            if entry["name"] == "victim":
                await redis.client_kill_filter(_id=entry["id"])
        connections: Any = client.connection_pool._available_connections

        def told() -> bool:
            return all(one._reader.at_eof() for one in connections)

        await eventually(told)
        for _ in range(4):
            assert await client.ping()


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("redis://localhost:6379/0", "ImprovedConnection"),
        ("rediss://localhost:6379/0", "ImprovedSSLConnection"),
        ("unix:///run/redis.sock", "ImprovedUnixDomainSocketConnection"),
    ],
)
def test_every_kind_of_url_gets_connections_of_its_kind(url: str, name: str) -> None:
    assert connection_class(url).__name__ == name
    client = connect(url, name="test")
    assert client.connection_pool.connection_class is connection_class(url)
    client.connection_pool.make_connection()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    "command",
    [
        ("PING",),
        ("CONFIG GET", "port"),
        (b"XADD", "käse", "*", b"\x00\xff", 1, -2.5, ""),
        ("SET", "a", memoryview(b"x")),
        ("SET", "a", bytearray(b"x")),
    ],
)
def test_commands_are_packed_as_redis_py_packs_them(command: tuple[object, ...]) -> None:
    connection = connection_class("redis://localhost")()
    ours = b"".join(connection.pack_command(*command))  # type: ignore[arg-type]
    assert ours == b"".join(Connection.pack_command(connection, *command))  # type: ignore[arg-type]


def test_what_cannot_be_sent_is_refused_as_redis_py_refuses_it() -> None:
    with pytest.raises(DataError):
        connection_class("redis://localhost")().pack_command("SET", "a", {"no": "dict"})  # type: ignore[arg-type]


async def test_callers_beyond_the_most_connections_wait_and_all_are_served(redis_url: str) -> None:
    async with connect(redis_url, name="test", max_connections=2) as client:
        replies = await asyncio.gather(*(client.execute_command("ECHO", str(n)) for n in range(50)))  # type: ignore[no-untyped-call]
        assert replies == [str(n).encode() for n in range(50)]
        pool: Any = client.connection_pool
        assert len(pool._available_connections) <= 2
        assert not pool._in_use_connections


async def test_a_cancelled_command_leaves_no_reply_for_the_next(redis_url: str) -> None:
    async with connect(redis_url, name="test", max_connections=1) as client:
        for moment in range(6):
            asked = asyncio.ensure_future(client.execute_command("ECHO", f"dropped {moment}"))  # type: ignore[no-untyped-call]
            for _ in range(moment):
                await asyncio.sleep(0)
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)
            assert await client.execute_command("ECHO", "kept") == b"kept"  # type: ignore[no-untyped-call]


async def test_a_reply_that_is_overdue_is_not_waited_for_and_never_taken_for_another(redis_url: str) -> None:
    async with connect(redis_url, name="test", max_connections=1) as client:
        pool: Any = client.connection_pool
        pool.connection_kwargs["socket_timeout"] = 0.2
        for _ in range(2):  # at once, and when the connection was idle for long
            began = monotonic()
            with pytest.raises(ReplyOverdueError):
                await client.blpop(["nothing"], timeout=3)
            assert 0.15 < monotonic() - began < 2
            assert await client.execute_command("ECHO", "kept") == b"kept"  # type: ignore[no-untyped-call]
            await eventually(lambda: pool._available_connections[0]._watched is None)


async def test_replies_that_come_in_time_may_come_for_as_long_as_they_like(redis_url: str) -> None:
    async with connect(redis_url, name="test", max_connections=1) as client:
        pool: Any = client.connection_pool
        pool.connection_kwargs["socket_timeout"] = 0.6
        await client.ping()
        [stream] = [connection._reader for connection in pool._available_connections]
        for _ in range(6):
            assert await client.blpop(["nothing"], timeout=0.2) is None
        assert [connection._reader for connection in pool._available_connections] == [stream]


async def test_a_reply_that_lay_unread_because_the_loop_was_blocked_is_not_overdue(redis_url: str) -> None:
    async with connect(redis_url, name="test", max_connections=1) as client:
        pool: Any = client.connection_pool
        pool.connection_kwargs["socket_timeout"] = 0.3
        await client.ping()
        for _ in range(3):
            asked = asyncio.ensure_future(client.execute_command("ECHO", "there"))  # type: ignore[no-untyped-call]
            for _ in range(3):
                await asyncio.sleep(0)  # it is sent
            sleep(1.0)  # noqa: ASYNC251 - an author's mistake, on purpose
            assert await asked == b"there"
