"""A server that can read and cannot write: its memory is full, or its disk. Then there is room again, and nobody helps.

Nothing may be lost, nobody may be taken for dead because he cannot be heard, and work must flow by itself.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio
import redis.exceptions

from bus import BusUnavailableError, Client, TaskCreate
from bus.outage import NotServingError
from tests.chaos.agent import Job
from tests.chaos.auditor import Evidence
from tests.chaos.residue import residue
from tests.chaos.stage import POOL, Stage
from tests.support.disk import NoDiskError, disk, fill, give_back
from tests.support.waiting import eventually

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120), pytest.mark.group(__name__)]

DISK_MB: Final = 256
FULL_S: Final = 6.0
"""Longer than every lease."""
ON_THE_WAY: Final = 40


@pytest.fixture(scope="module")
def server_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """Return the stage's folder, and why its server has no disk of its own, if so."""
    folder = tmp_path_factory.mktemp("full") / "run"
    try:
        with disk(folder / "server", DISK_MB):
            yield folder, ""
    except NoDiskError as error:
        yield folder, str(error)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def stage(server_disk: tuple[Path, str]) -> AsyncIterator[Stage]:
    # `everysec`: with `always` a server ends itself when it cannot write, which is another fault.
    async with Stage(server_disk[0], agents=2, producers=1, persistence="everysec") as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def bus(stage: Stage) -> AsyncIterator[Client]:
    async with Client(stage.server.url, pool=POOL) as client:
        yield client


@asynccontextmanager
async def full_memory(stage: Stage) -> AsyncIterator[None]:
    """Have not a byte of memory left while the block runs."""
    await stage.redis.config_set("maxmemory", 1)
    try:
        yield
    finally:
        await stage.redis.config_set("maxmemory", 0)


@asynccontextmanager
async def full_disk(stage: Stage) -> AsyncIterator[None]:
    """Have not a byte of disk left while the block runs."""
    folder = stage.server.data_dir
    try:
        await asyncio.to_thread(fill, folder)
        yield
    finally:
        give_back(folder)


async def _refuses(stage: Stage) -> bool:
    try:
        await stage.redis.set("callboard-test", "x" * 100)
    except (redis.exceptions.OutOfMemoryError, NotServingError):
        return True
    return False


async def _works(stage: Stage, bus: Client, full: Callable[[Stage], Any]) -> None:
    """Have work in all its states when the server is full, and let it stay so beyond every lease."""
    sessions = {agent.agent_id: agent.session for agent in await bus.agents()}
    short = [TaskCreate(capability="chaos.work", payload=Job(n=n, ms=1_000), max_attempts=1) for n in range(ON_THE_WAY)]
    long = [TaskCreate(capability="chaos.work", payload=Job(n=-1, ms=9_000), max_attempts=1) for _ in range(3)]
    handles = await bus.submit_many(long + short)
    await eventually(lambda: len(Evidence(stage.journals).of_task.keys() & {h.id for h in handles}) > ON_THE_WAY // 2)
    async with full(stage):
        await eventually(lambda: _refuses(stage))
        submitting = asyncio.create_task(bus.submit("chaos.work", Job(n=-2)))
        await asyncio.sleep(FULL_S)
        assert all(process.running for process in stage.processes.values())
        refused = submitting.done() and isinstance(submitting.exception(), BusUnavailableError)
        assert refused or not submitting.done()
    if not refused:
        assert (await (await submitting).result(timeout=30))["n"] == -2
    assert (await (await bus.submit("chaos.work", Job(n=-3))).result(timeout=30))["n"] == -3
    for handle in handles:
        assert await handle.result(timeout=30)
    executions = Evidence(stage.journals).of_task
    assert {len(executions[handle.id]) for handle in handles} == {1}
    assert {agent.agent_id: agent.session for agent in await bus.agents()} == sessions
    assert not [line for line in _logs(stage) if "restart" in line.lower() or "signed in" in line]
    await eventually(lambda: _tidy(stage), timeout=30)


def _logs(stage: Stage) -> list[str]:
    """Return what agents have said since their first sign-in."""
    return [
        line
        for name in stage.agents
        for line in (stage.folder / f"{name}.log").read_text().partition("is signed in")[2].splitlines()
    ]


async def _tidy(stage: Stage) -> bool:
    await stage.redis.delete("callboard-test")
    return not await residue(stage.redis, stage.names, stage.dispatchers)


async def test_a_server_without_memory_costs_nobody_his_task_or_his_lease(stage: Stage, bus: Client) -> None:
    await _works(stage, bus, full_memory)


async def test_a_server_without_disk_costs_nobody_his_task_or_his_lease(
    stage: Stage, bus: Client, server_disk: tuple[Path, str]
) -> None:
    if server_disk[1]:
        pytest.skip(f"no disk that may be filled: {server_disk[1]}")
    await _works(stage, bus, full_disk)
