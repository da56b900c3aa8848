"""Durability on request, on real servers: one with its file synced, one with a replica, one with nothing."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as LostError

from bus import (
    BusUnavailableError,
    Client,
    DurabilityNotProvenError,
    DurabilityUnavailableError,
    HttpClient,
    Replicated,
    TaskCreate,
)
from bus.connection import connect
from bus.embedded import EmbeddedServer, Persistence
from bus.ids import check_pool
from bus.names import DATA_FIELD, PoolNames
from bus.states import TaskPriority
from tests.callboard.commandline import CommandLine
from tests.dispatcher.api.conftest import serving
from tests.dispatcher.api.test_http_client import address
from tests.support.waiting import eventually

NAMES = PoolNames(check_pool("default"))
INTAKE = NAMES.submissions(TaskPriority.MEDIUM)


@asynccontextmanager
async def server(folder: Path, persistence: Persistence = "none", port: int = 0) -> AsyncIterator[EmbeddedServer]:
    folder.mkdir(exist_ok=True)
    async with EmbeddedServer(data_dir=folder, persistence=persistence, port=port) as running:
        yield running


@asynccontextmanager
async def replicated(folder: Path) -> AsyncIterator[tuple[EmbeddedServer, EmbeddedServer]]:
    """Provide a server and its replica."""
    async with server(folder / "master") as master, server(folder / "replica") as replica:
        async with connect(replica.url, name="test") as client, connect(master.url, name="test") as leading:
            await client.replicaof("127.0.0.1", str(master.port))

            async def online() -> bool:
                # It counts as connected five seconds before it is sent anything (repl-diskless-sync-delay).
                return bool((await leading.info("replication")).get("slave0", {}).get("state") == "online")

            await eventually(online, timeout=30)
        yield master, replica


async def bodies(redis: Redis) -> list[bytes]:
    entries: Any = await redis.xrange(INTAKE)
    return [fields[DATA_FIELD.encode()] for _, fields in entries]


async def test_what_was_acknowledged_as_synced_survives_the_death_of_the_server(tmp_path: Path) -> None:
    acknowledged: list[str] = []
    async with server(tmp_path / "data", "always") as running:
        port = running.port
        async with Client(running.url) as bus:
            while len(acknowledged) < 200:
                acknowledged.append((await bus.submit("t.x", durability="fsync")).id)
            many = await bus.submit_many([TaskCreate(capability="t.x")] * 500, durability="fsync")
            acknowledged += [one.id for one in many]
            os.kill(running.pid, signal.SIGKILL)
            with pytest.raises(BusUnavailableError):
                await bus.submit("t.x", durability="fsync")
    async with server(tmp_path / "data", "always", port) as running, connect(running.url, name="test") as redis:
        stored = b"".join(await bodies(redis))
        assert [one for one in acknowledged if one.encode() not in stored] == []


@pytest.mark.parametrize("persistence", ["none", "everysec"])
async def test_a_server_that_does_not_sync_is_refused_before_anything_is_stored(
    tmp_path: Path, persistence: Persistence
) -> None:
    async with server(tmp_path / "data", persistence) as running, Client(running.url) as bus:
        with pytest.raises(DurabilityUnavailableError, match="set `appendonly yes` and `appendfsync always`"):
            await bus.submit("t.x", durability="fsync")
        with pytest.raises(DurabilityUnavailableError, match="0 replicas are connected and 1 are asked for"):
            await bus.submit_many([TaskCreate(capability="t.x")], durability="replicated")
        assert (await bus.queue_status()).unread == 0


async def test_what_was_acknowledged_as_replicated_is_on_the_replica(tmp_path: Path) -> None:
    async with replicated(tmp_path) as (master, replica), Client(master.url) as bus:
        first = await bus.submit("t.x", key="once", durability="replicated")
        again = await bus.submit("t.x", key="once", durability="replicated")
        assert again.id == first.id
        many = await bus.submit_many([TaskCreate(capability="t.x")] * 100, durability=Replicated(1, timeout=5))
        os.kill(master.pid, signal.SIGKILL)
        async with connect(replica.url, name="test") as redis:
            stored = b"".join(await bodies(redis))
            assert [one.id for one in (first, *many) if one.id.encode() not in stored] == []
        with pytest.raises((DurabilityUnavailableError, BusUnavailableError)):
            await bus.submit("t.x", durability=Replicated(2))


async def test_a_replica_that_does_not_answer_is_told_and_the_task_is_stored(tmp_path: Path) -> None:
    async with replicated(tmp_path) as (master, replica), Client(master.url) as bus:
        os.kill(replica.pid, signal.SIGSTOP)
        try:
            with pytest.raises(DurabilityNotProvenError, match="0 of 1 replicas have acknowledged") as caught:
                await bus.submit("t.x", durability=Replicated(1, timeout=0.3))
        finally:
            os.kill(replica.pid, signal.SIGCONT)
        (handle,) = caught.value.handles
        assert (await bus.queue_status()).unread == 1
        async with connect(master.url, name="test") as redis:
            assert handle.id.encode() in b"".join(await bodies(redis))


async def test_a_server_that_was_restarted_in_between_proves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a failover does: the promise was another server's."""
    async with AsyncExitStack() as stack:
        one = EmbeddedServer(data_dir=tmp_path, persistence="always")
        await one.start()
        bus = await stack.enter_async_context(Client(one.url))
        submit = bus._submitter.submit

        async def and_restart(*arguments: Any) -> bool:
            known = await submit(*arguments)
            port = one.port
            await one.stop()
            await stack.enter_async_context(EmbeddedServer(data_dir=tmp_path, persistence="always", port=port))
            with suppress(LostError):  # each finds its own old connection dead once
                await bus._link.redis.ping()
            return known

        monkeypatch.setattr(bus._submitter, "submit", and_restart)
        with pytest.raises(DurabilityNotProvenError, match="the server was restarted"):
            await bus.submit("t.x", durability="fsync")


async def test_over_http_it_is_asked_for_and_refused_alike(tmp_path: Path) -> None:
    async with server(tmp_path / "none") as none, server(tmp_path / "always", "always") as always:
        async with serving(none.url, "default") as api, HttpClient(address(api), pool="default") as bus:
            with pytest.raises(DurabilityUnavailableError, match="for durability fsync cannot be had: the server has"):
                await bus.submit("t.x", durability="fsync")
            with pytest.raises(DurabilityUnavailableError, match="0 replicas"):
                await bus.submit_many([TaskCreate(capability="t.x")], durability="replicated")
            assert (await api.post("/tasks/dispatch?durability=x", json={"capability": "t.x"})).status_code == 422
        async with serving(always.url, "default") as api, HttpClient(address(api), pool="default") as bus:
            one = await bus.submit("t.x", durability="fsync")
            many = await bus.submit_many([TaskCreate(capability="t.x")] * 3, durability="fsync")
            async with connect(always.url, name="test") as redis:
                stored = b"".join(await bodies(redis))
            assert all(handle.id.encode() in stored for handle in (one, *many))
    async with (
        replicated(tmp_path) as (master, replica),
        serving(master.url, "default") as api,
        HttpClient(address(api), pool="default") as bus,
    ):
        await bus.submit("t.x", durability="replicated")
        os.kill(replica.pid, signal.SIGSTOP)
        try:
            with pytest.raises(DurabilityNotProvenError, match="0 of 1 replicas"):
                await bus.submit("t.x", durability="replicated")
        finally:
            os.kill(replica.pid, signal.SIGCONT)


async def test_what_is_no_durability_is_refused(redis_url: str, pool: str) -> None:
    async with Client(redis_url, pool=pool) as bus:
        with pytest.raises(ValueError, match="durability is 'fsync'"):
            await bus.submit("t.x", durability="yes")  # type: ignore[call-overload] # on purpose
    with pytest.raises(ValueError, match="at least 1"):
        Replicated(0)


async def test_the_command_line_asks_for_it(tmp_path: Path, callboard_at_none: CommandLine) -> None:
    complaint = callboard_at_none.submit("t.x", "--durability", "fsync").complaint(1)
    assert "nothing was submitted, for durability fsync cannot be had" in complaint
    async with server(tmp_path / "data", "always") as running:
        ran = CommandLine(running.url, "p", tmp_path).submit("t.x", "--durability", "fsync")
        assert ran.code == 0
        assert ran.out.startswith("p.")


@pytest.fixture
def callboard_at_none(redis_url: str, pool: str, tmp_path: Path) -> CommandLine:
    return CommandLine(redis_url, pool, tmp_path)
