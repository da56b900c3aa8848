"""A dispatcher is killed, or sleeps beyond its lease, with a command to the server under way, its blocked reads too.

`test_killed_at_every_step` kills between the steps of the program; here the server does what nobody hears of any more.
The dispatcher is a process of its own (`tests.support.doomed`). Work is in flight: submissions that another had read
and not consumed, ones in the ledger already, an agent that begins, ends and goes on meanwhile.
"""

import asyncio
import re
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic_core import from_json
from redis.asyncio import Redis

from bus import Client, TaskCreate, TaskHandle, TaskPriority, TaskStatus
from bus.ids import check_pool
from bus.messages import EventBatch, TaskUpdate
from bus.names import DATA_FIELD, DISPATCHERS_GROUP, PoolNames
from dispatcher.audit.auditor import Auditor
from dispatcher.audit.streams import Patience
from dispatcher.leadership import leads
from tests.support import doomed
from tests.support.bus import WireAgent, running_dispatcher
from tests.support.doomed import Doom, Moment
from tests.support.waiting import eventually

OLD, NEW, CLAIMED = 5, 125, 30
"""Tasks that a leader before had accepted; ones that nobody has, in one pass of two calls; of these, fetched ones."""

POINTS = [
    Doom("commit", 2, Moment.SENT),
    Doom("XAUTOCLAIM", 7, Moment.SENT),
    Doom("XAUTOCLAIM", 7, Moment.ANSWERED),
    Doom("XREADGROUP", 1, Moment.SENT),
    Doom("XREADGROUP", 1, Moment.ANSWERED),
    Doom("release", 1, Moment.SENT),
]


class Worker:
    """Does what the agent is given, and counts how often it was given what."""

    def __init__(self, agent: WireAgent) -> None:
        self.given: Counter[str] = Counter()
        self._agent = agent

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            assignment = await self._agent.next(timeout=60)
            self.given[assignment.task_id] += 1
            await self._agent.report(
                updates=(TaskUpdate(task_id=assignment.task_id, attempt=assignment.attempt, note="begun"),)
            )
            await self._agent.complete(assignment, assignment.task_id)


async def fetched_by_another(redis: Redis, names: PoolNames) -> None:
    """Let a leader that is no more have read some submissions."""
    stream = names.submissions(TaskPriority.MEDIUM)
    await redis.xreadgroup(DISPATCHERS_GROUP, "late", {stream: ">"}, count=CLAIMED)


async def ended(process: BaseProcess) -> int | None:
    """Return the exit code of a process when it has ended."""
    await eventually(lambda: not process.is_alive(), timeout=20)
    return process.exitcode


async def ends(redis: Redis, names: PoolNames) -> Counter[str]:
    """Return how often the events tell of the end of a task."""
    found: Counter[str] = Counter()
    entries: Any = await redis.xrange(names.events)
    for _, fields in entries:
        batch = EventBatch.model_validate(from_json(fields[DATA_FIELD.encode()]))
        found.update(task.task_id for task in batch.tasks if task.status.terminal)
    return found


async def all_is_well(redis: Redis, names: PoolNames, handles: list[TaskHandle[Any]], worker: Worker) -> None:
    """See that each task was done once, ended once and was told of, and that nothing is left."""
    results = await asyncio.gather(*(handle.result(timeout=30) for handle in handles))
    ids = [handle.id for handle in handles]
    assert results == ids
    once = dict.fromkeys(ids, 1)
    assert worker.given == once
    assert await ends(redis, names) == once
    states = {str(await redis.hget(names.task(task_id), "state")) for task_id in ids}
    assert {state.split("/")[0] for state in states} == {f"b'{TaskStatus.COMPLETED}"}
    for stream in (names.results, names.registrations, names.commands, names.submissions(TaskPriority.MEDIUM)):
        await eventually(lambda stream=stream: _empty(redis, stream))  # type: ignore[misc]
    assert await redis.xlen(names.rejected) == 0
    patience = Patience(consumed_ms=2_000, idle_ms=60_000)
    assert await Auditor(redis, names, pause_s=0.05, patience=patience).run() == []


async def _empty(redis: Redis, stream: str) -> bool:
    return not await redis.xlen(stream)


@dataclass
class Scene:
    """A pool with work in flight, a dispatcher that is doomed, and an agent that signs in as soon as one leads."""

    handles: list[TaskHandle[Any]]
    first: BaseProcess
    log: Path
    worker: Worker
    signing_in: asyncio.Task[None]


@asynccontextmanager
async def work_in_flight(
    redis: Redis, url: str, pool: str, bus: Client, doom: Doom, folder: Path
) -> AsyncIterator[Scene]:
    names = PoolNames(check_pool(pool))
    async with running_dispatcher(url, pool):
        handles = await bus.submit_many(TaskCreate(capability="t.x") for _ in range(OLD))
        await eventually(lambda: accepted(redis, names))
    handles += await bus.submit_many(TaskCreate(capability="t.x") for _ in range(NEW))
    await fetched_by_another(redis, names)
    log = folder / "doomed.log"
    first = doomed.start(url, pool, doom, log)
    agent = WireAgent(redis, pool)
    worker = Worker(agent)
    signing_in, working = asyncio.create_task(agent.register("t.x")), asyncio.create_task(worker.run())
    try:
        yield Scene(handles, first, log, worker, signing_in)
    finally:
        first.kill()
        signing_in.cancel()
        working.cancel()
        await asyncio.gather(signing_in, working, return_exceptions=True)
        await agent.fall_silent()


async def accepted(redis: Redis, names: PoolNames) -> bool:
    return int(await redis.zcard(names.pending)) == OLD


@pytest.mark.timeout(60)
@pytest.mark.parametrize("doom", POINTS, ids=str)
async def test_a_dispatcher_that_is_killed_with_a_command_under_way_leaves_nothing_undone_and_nothing_twice(
    redis: Redis, redis_url: str, pool: str, doom: Doom, tmp_path: Path
) -> None:
    names = PoolNames(check_pool(pool))
    async with (
        Client(redis_url, pool=pool) as bus,
        work_in_flight(redis, redis_url, pool, bus, doom, tmp_path) as scene,
    ):
        if doom.name == "release":
            await eventually(lambda: len(scene.worker.given) > NEW // 10)
            scene.first.terminate()
        assert await ended(scene.first) == -signal.SIGKILL, "the point was not come to"
        await redis.delete(names.leader)  # its lease ends
        async with running_dispatcher(redis_url, pool):
            await scene.signing_in
            await all_is_well(redis, names, scene.handles, scene.worker)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("doom", "told"),
    [
        (Doom("commit", 2, Moment.BEFORE, signal.SIGSTOP), "another leader or none has the lease now"),
        (Doom("commit", 5, Moment.SENT, signal.SIGSTOP), "lease"),
        (Doom("renew", 2, Moment.BEFORE, signal.SIGSTOP), "lease"),
    ],
    ids=["a commit is late", "an answer is late", "its reads go on"],
)
async def test_of_two_that_believe_to_lead_the_one_that_slept_is_refused_and_nothing_is_lost(
    redis: Redis, redis_url: str, pool: str, doom: Doom, told: str, tmp_path: Path
) -> None:
    names = PoolNames(check_pool(pool))
    async with (
        Client(redis_url, pool=pool) as bus,
        work_in_flight(redis, redis_url, pool, bus, doom, tmp_path) as scene,
    ):
        sleeper = psutil.Process(scene.first.pid)
        await eventually(lambda: sleeper.status() == psutil.STATUS_STOPPED, timeout=20)
        urgent = [TaskCreate(capability="t.x", priority=TaskPriority.URGENT) for _ in range(10)]
        scene.handles += await bus.submit_many(urgent)
        if doom.name == "renew":
            assert await eventually(lambda: fetched_by_the_sleeper(redis, names)), "its blocked read takes them"
        async with running_dispatcher(redis_url, pool):
            await eventually(lambda: led_by_another(redis, names))
            await scene.signing_in
            sleeper.resume()
            await eventually(lambda: re.search(f"lost the lead: .*{told}", scene.log.read_text()))
            await all_is_well(redis, names, scene.handles, scene.worker)
            scene.first.terminate()
            assert await ended(scene.first) == 0


async def led_by_another(redis: Redis, names: PoolNames) -> bool:
    token: Any = await redis.get(names.leader)
    return leads(token) not in (None, doomed.NAME)


async def fetched_by_the_sleeper(redis: Redis, names: PoolNames) -> bool:
    stream = names.submissions(TaskPriority.URGENT)
    return int((await redis.xpending(stream, DISPATCHERS_GROUP))["pending"]) > 0
