"""Requeues and purges against a leader at work: many at once, at the same time, and across a change of the leader."""

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from bus import Client, TaskCreate, TaskStatus
from bus.ids import check_pool
from bus.messages import CancelTasks, RequeueDead, TaskResult
from bus.names import PoolNames
from dispatcher.core.events import Commanded, OfDeadLetters
from dispatcher.observer import Silent
from dispatcher.revival import with_records
from tests.support.bus import WireAgent, running_dispatcher, wire_agent
from tests.support.waiting import eventually


class Watching(Silent):
    """Notes how often its dispatcher began to lead, and how long its passes took."""

    def __init__(self) -> None:
        self.epochs: list[int] = []
        self.passes: list[float] = []
        self.sizes: list[int] = []

    def leading(self, epoch: int) -> None:
        if epoch:
            self.epochs.append(epoch)

    def decided(self, decisions: int, seconds: float) -> None:
        self.sizes.append(decisions)
        self.passes.append(seconds)


async def expired(bus: Client, number: int, *tags: str) -> list[str]:
    """Submit tasks that nobody can do in time; return their ids when all have failed."""
    tasks = (TaskCreate(capability="work", payload=n, queue_timeout=0.01, tags=tags) for n in range(number))
    ids = [str(handle.id) for handle in await bus.submit_many(tasks)]

    async def all_failed() -> bool:
        return (await bus.queue_status()).dead >= number

    await eventually(all_failed, 60)
    return ids


@pytest.mark.alone
@pytest.mark.timeout(300)
async def test_ten_thousand_dead_letters_are_requeued_by_a_filter_in_short_passes(redis_url: str, pool: str) -> None:
    watching = Watching()
    async with (
        running_dispatcher(redis_url, pool, observer=watching, leader_lease=timedelta(seconds=30)),
        Client(redis_url, pool=pool) as bus,
    ):
        ids = await expired(bus, 10_000, "night")
        watching.passes.clear()
        watching.sizes.clear()
        told = await bus.dead.requeue(where="tag=night reason=expired")
        assert set(told.done) == set(ids)
        assert len(told.done) == 10_000
        assert max(watching.sizes) < 2_000  # each is requeued, and then fails again
        assert max(watching.passes) < 1.5  # half the lease; a tenth of it on a machine with nothing else to do
        assert len(watching.epochs) == 1


async def test_commands_at_the_same_time_never_cost_the_leader_its_memory(redis_url: str, pool: str) -> None:
    watching = Watching()
    async with running_dispatcher(redis_url, pool, observer=watching), Client(redis_url, pool=pool) as bus:
        ids = await expired(bus, 300)
        async with Client(redis_url, pool=pool) as other:
            meanwhile = asyncio.gather(
                *(who.dead.requeue(where="") for who in (bus, other)),
                bus.cancel(ids),
                other.cancel_matching("capability=work"),
            )
            told = await asyncio.gather(
                *(who.dead.requeue(ids) for who in (bus, other) for _ in range(3)),
                *(who.dead.purge(ids) for who in (bus, other) for _ in range(3)),
            )
            await meanwhile
        assert len(watching.epochs) == 1
        of_each = Counter(one for said in told for ids_ in (said.done, said.not_dead, said.unknown) for one in ids_)
        assert set(of_each.values()) == {12}, "each command is answered for each task"
        assert set(of_each) == set(ids)


async def test_tasks_that_fail_again_at_once_can_be_requeued_again_and_again(
    redis: Redis, redis_url: str, pool: str
) -> None:
    watching = Watching()
    async with running_dispatcher(redis_url, pool, observer=watching), Client(redis_url, pool=pool) as bus:
        ids = await expired(bus, 50)
        async with wire_agent(redis, pool, "work", slots=64) as agent:
            failing = asyncio.create_task(_fail_all(agent))
            for _ in range(10):
                done = [await bus.dead.requeue(ids), await bus.dead.requeue(ids)]
                assert all(len(said.done) + len(said.not_dead) == 50 for said in done)
            failing.cancel()
        assert len(watching.epochs) == 1
        letters = [await bus.get(one) for one in ids]
        assert all(len(one.requeues) >= 1 for one in letters)
        for letter in letters:
            numbers = [past.attempt for past in letter.attempts]
            assert numbers == sorted(set(numbers)), "no attempt has the number of another"


async def _fail_all(agent: WireAgent) -> None:
    while True:
        given = await agent.assignments.get()
        agent.held.pop(given.task_id, None)
        failure = TaskResult(
            task_id=given.task_id, attempt=given.attempt, status=TaskStatus.FAILED, retryable=False, output=None
        )
        await agent.report(results=(failure,))


async def test_a_requeue_is_finished_by_the_next_leader_and_each_task_gets_one_new_life(
    redis_url: str, pool: str
) -> None:
    async with Client(redis_url, pool=pool) as bus:
        async with running_dispatcher(redis_url, pool, dispatcher_id="one", leader_lease=timedelta(seconds=2)):
            ids = await expired(bus, 2_000)
            asking = asyncio.create_task(bus.dead.requeue(ids, timeout=20))

            async def begun() -> bool:
                return bool((await bus.get(ids[0])).requeues)

            await eventually(begun)
        async with running_dispatcher(redis_url, pool, dispatcher_id="two"):
            told = await asking
            assert sorted(told.done) == sorted(ids)
            for one in ids[::100]:
                assert len((await bus.get(one)).requeues) == 1


async def test_a_record_of_a_wrong_kind_or_content_is_unknown_and_stops_nobody(
    redis: Redis, redis_url: str, pool: str
) -> None:
    watching = Watching()
    names = PoolNames(check_pool(pool))
    async with running_dispatcher(redis_url, pool, observer=watching), Client(redis_url, pool=pool) as bus:
        (good,) = await expired(bus, 1)
        bad = [f"{pool}.{what}" for what in ("string", "state", "spec")]
        await redis.set(names.task(bad[0]), "x")
        await redis.hset(names.task(bad[1]), mapping={"state": "DEAD", "spec": "{}", "run": "{}"})
        await redis.hset(names.task(bad[2]), mapping={"state": "FAILED/1//", "spec": "[", "run": "{}"})
        told = await bus.dead.requeue([*bad, good])
        assert (told.done, set(told.unknown)) == ((good,), set(bad))
        assert len(watching.epochs) == 1


async def test_a_record_lives_on_while_it_is_decided_on_and_what_does_not_expire_still_does_not(
    redis: Redis, pool: str
) -> None:
    names = PoolNames(check_pool(pool))
    dead, live = f"{pool}.dead", f"{pool}.live"
    record: dict[Any, Any] = {"spec": '{"capability":"work"}', "run": "{}"}
    await redis.hset(names.task(dead), mapping={**record, "state": "FAILED/1//"})
    await redis.pexpire(names.task(dead), 300)
    await redis.hset(names.task(live), mapping={**record, "state": "PENDING/0//"})
    asked = Commanded(RequeueDead(task_ids=(dead, live, f"{pool}.none")), 1)
    other = Commanded(CancelTasks(task_ids=(dead,)), 1)
    completed, untouched = await with_records(redis, names, [asked, other])
    assert isinstance(completed, OfDeadLetters)
    assert {one: stored.guard.status for one, stored in completed.found.items()} == {
        dead: TaskStatus.FAILED,
        live: TaskStatus.PENDING,
    }
    assert untouched is other
    assert await redis.pttl(names.task(dead)) > 60_000
    assert await redis.pttl(names.task(live)) == -1
