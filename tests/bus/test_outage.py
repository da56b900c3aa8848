"""Which replies mean that the server is away, and which that somebody has made a mistake."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
import redis.exceptions
from redis.asyncio import Redis

from bus import Client
from bus.connection import CONNECTION_ERRORS, connect, connect_blocking
from bus.outage import is_refusal
from tests.support.waiting import eventually

Prepare = Callable[[Redis], Awaitable[object]]

_WRITE = "return redis.call('XADD', KEYS[1], '*', 'a', 'b')"


async def _loops(client: Redis) -> None:
    await client.config_set("lua-time-limit", 20)
    asyncio.get_running_loop().create_task(_for_ever(client))
    with suppress(redis.exceptions.ResponseError):
        while True:
            await client.ping()


async def _for_ever(client: Redis) -> None:
    with suppress(Exception):
        await client.eval("while true do end", 0)  # type: ignore[misc, unused-ignore]


async def _masterless(client: Redis) -> None:
    await client.config_set("replica-serve-stale-data", "no")
    await client.replicaof("127.0.0.1", "1")


_AWAY: dict[str, Prepare] = {
    "NOREPLICAS": lambda client: client.config_set("min-replicas-to-write", 1),
    "OOM": lambda client: client.config_set("maxmemory", 1),
    "READONLY": lambda client: client.replicaof("127.0.0.1", "1"),
    "MASTERDOWN": _masterless,
    "BUSY": _loops,
}


@pytest.mark.parametrize("kind", _AWAY)
async def test_a_server_that_cannot_now_is_away_for_every_kind_of_client(kind: str, own: Redis, own_url: str) -> None:
    with connect_blocking(own_url, name="test", timeout=2) as blocking:
        blocking.ping()
        await _AWAY[kind](own)
        raised: list[BaseException] = []
        for command in (
            lambda: own.xadd("s", {"a": "b"}),
            lambda: own.execute_command("EVAL", _WRITE, 1, "s"),  # type: ignore[no-untyped-call]
            lambda: asyncio.to_thread(blocking.xadd, "s", {"a": "b"}),
        ):
            with pytest.raises(CONNECTION_ERRORS) as caught:
                await command()
            raised.append(caught.value)
        async with own.pipeline(transaction=True) as pipe:
            pipe.xadd("s", {"a": "b"})
            with pytest.raises(CONNECTION_ERRORS) as caught:
                await pipe.execute()
            raised.append(caught.value)
        assert not any(is_refusal(error) for error in raised)
        if kind == "BUSY":
            await own.script_kill()


async def test_a_mistake_is_no_outage(own: Redis, own_url: str) -> None:
    await own.set("text", "x")
    await own.execute_command("ACL", "SETUSER", "reader", "on", ">pw", "~*", "+get")  # type: ignore[no-untyped-call]
    address = own_url.removeprefix("redis://")
    async with (
        connect(f"redis://reader:pw@{address}", name="test") as reader,
        connect(f"redis://reader:wrong@{address}", name="test") as stranger,
    ):
        for words, command in (
            ("WRONGTYPE|wrong kind", lambda: own.xadd("text", {"a": "b"})),
            ("permissions", lambda: reader.xadd("s", {"a": "b"})),
            ("invalid username", lambda: stranger.get("text")),
            ("unknown command", lambda: own.execute_command("NONESUCH")),  # type: ignore[no-untyped-call]
        ):
            with pytest.raises(redis.exceptions.RedisError, match=words) as caught:
                await command()
            assert is_refusal(caught.value)


async def test_a_submission_waits_until_a_failover_is_over(own: Redis, own_url: str) -> None:
    async with Client(own_url) as client:
        await own.replicaof("127.0.0.1", "1")
        submitting = asyncio.create_task(client.submit("a.b"))

        async def refused() -> bool:
            said: Any = (await own.info("commandstats")).get("cmdstat_evalsha", {})
            return bool(said.get("rejected_calls", 0) + said.get("failed_calls", 0) >= 2)

        await eventually(refused)
        await own.execute_command("REPLICAOF", "NO", "ONE")  # type: ignore[no-untyped-call]
        assert (await submitting).pool == "default"


async def test_a_submission_that_is_refused_for_good_is_refused_at_once(own: Redis, own_url: str) -> None:
    async with Client(own_url) as client:
        await own.set("callboard:{default}:tasks:medium", "of a wrong type")
        with pytest.raises(redis.exceptions.ResponseError, match="WRONGTYPE"):
            await client.submit("a.b")
