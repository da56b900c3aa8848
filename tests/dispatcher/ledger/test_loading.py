"""Reading what a leader before has stored: in order, whole, and however it changes meanwhile."""

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

import dispatcher.pool
from bus import Client, TaskCreate
from bus.ids import check_pool
from bus.names import PoolNames
from bus.requirement_text import parse_requirement
from dispatcher import loading
from dispatcher.loading import load_unheld
from tests.support.bus import WireAgent, running_dispatcher
from tests.support.waiting import eventually

TASKS = 60


async def stored(url: str, redis: Redis, pool: str, *tasks: TaskCreate) -> list[str]:
    """Let a leader store tasks that nobody takes, and stop it; return their ids."""
    names = PoolNames(check_pool(pool))
    async with running_dispatcher(url, pool), Client(url, pool=pool) as bus:
        ids = [str(handle.id) for handle in await bus.submit_many(tasks)]
        await eventually(lambda: all_stored(redis, names, len(ids)))
    return ids


async def all_stored(redis: Redis, names: PoolNames, count: int) -> bool:
    """Tell whether so many tasks wait."""
    return await redis.zcard(names.pending) + await redis.zcard(names.delayed) == count


async def test_pages_hold_what_is_taken_out_of_the_list_while_it_is_read(
    redis: Redis, redis_url: str, pool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "PAGE", 7)
    names = PoolNames(check_pool(pool))
    ids = await stored(redis_url, redis, pool, *[TaskCreate(capability="t.x", payload=n) for n in range(TASKS)])
    # All of one score, so that only their names tell where a page begins.
    await redis.zadd(names.pending, dict.fromkeys(ids, 7))
    read: list[str] = []
    async for page in load_unheld(redis, names):
        read += [one.task_id for one in page]
        await redis.zrem(names.pending, *read)
    assert sorted(read) == sorted(ids)


async def test_equal_submissions_share_what_they_have_in_common_and_no_more(
    redis: Redis, redis_url: str, pool: str
) -> None:
    asked = parse_requirement("t.x[lang contains de]")
    ids = await stored(
        redis_url,
        redis,
        pool,
        TaskCreate(capability="t.x", requires=asked.requires, payload=1, metadata={"a": 1}),
        TaskCreate(capability="t.x", requires=asked.requires, payload=2, metadata={"b": 2}),
        TaskCreate(capability="t.x", slots=2),
        TaskCreate(capability="t.x", delay=3600),
    )
    names = PoolNames(check_pool(pool))
    found = {one.task_id: one for page in [page async for page in load_unheld(redis, names)] for one in page}
    first, second, third, fourth = (found[task_id] for task_id in ids)
    assert first.header is second.header
    assert first.header.requires
    assert (third.header.slots, fourth.header.delay) == (2, 3600)
    assert third.header.requires == ()
    assert fourth.run.not_before


async def test_a_new_leader_places_what_it_has_loaded_before_it_has_loaded_all(
    redis: Redis, redis_url: str, pool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stored(redis_url, redis, pool, *[TaskCreate(capability="t.x", payload=n) for n in range(3)])
    more = asyncio.Event()

    async def one_by_one(redis: Redis, names: PoolNames) -> loading.Pages:
        async for page in load_unheld(redis, names):
            for one in page:
                yield [one]
                await more.wait()

    monkeypatch.setattr(dispatcher.pool, "load_unheld", one_by_one)
    agent = WireAgent(redis, pool)
    leader = running_dispatcher(redis_url, pool)
    leading = asyncio.create_task(leader.__aenter__())
    await agent.register("t.x", slots=3)
    first = await agent.next()
    assert first.task.payload == 0
    await agent.complete(first, "well")
    async with Client(redis_url, pool=pool) as bus:
        assert await bus.handle(first.task_id).result(timeout=30) == "well"
        late = await bus.submit("t.x", payload=3)
        assert not leading.done(), "it does not read what clients write until it knows all tasks"
        more.set()
        await leading
        given = sorted([await agent.next() for _ in range(3)], key=lambda one: one.score)
        assert [one.task.payload for one in given] == [1, 2, 3]
        assert given[-1].task_id == late.id
    await agent.fall_silent()
    await leader.__aexit__(None, None, None)


@pytest.mark.parametrize("turns", range(8))
async def test_whoever_is_cancelled_when_all_is_read_learns_of_it(redis: Redis, names: PoolNames, turns: int) -> None:
    """A leader that has lost the lead just then would go on reading for ever, and take half of what is for the next."""

    async def load() -> None:
        async for _ in load_unheld(redis, names):
            pass
        await asyncio.Event().wait()

    before = asyncio.all_tasks()
    loading = asyncio.create_task(load())
    fetches: set[asyncio.Task[Any]] = set()
    while len(fetches) < 2 or not all(one.done() for one in fetches):  # of what waits, and of what is delayed
        await asyncio.sleep(0)
        fetches |= {one for one in asyncio.all_tasks() - before if one.get_name() == "ledger"}
    for _ in range(turns):
        await asyncio.sleep(0)
    loading.cancel()
    await asyncio.wait([loading], timeout=1)
    assert loading.cancelled()
