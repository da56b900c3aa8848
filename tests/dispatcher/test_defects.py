"""A dispatcher that has a defect: it ends a term of one pool, it is told, and no single message keeps a pool down."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from pydantic_core import from_json
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from bus import Client, TaskCreate
from bus.ids import check_pool
from bus.messages import CancelTasks
from bus.names import DATA_FIELD, PoolNames
from dispatcher import pool as pool_module
from dispatcher.core.decisions import Decisions, TaskTransition
from dispatcher.core.events import Event, Submitted
from dispatcher.core.scheduler import Scheduler
from dispatcher.observer import Silent
from dispatcher.service import Dispatcher
from dispatcher.settings import DispatcherSettings
from tests.support.bus import running_dispatcher, wire_agent
from tests.support.waiting import eventually

CURSED = "t.cursed"


class Watching(Silent):
    """Counts defects and leads."""

    def __init__(self) -> None:
        self.defects = 0
        self.epochs: list[int] = []

    def defect(self) -> None:
        self.defects += 1

    def leading(self, epoch: int) -> None:
        if epoch:
            self.epochs.append(epoch)


def cursed(events: Iterable[Event]) -> bool:
    return any(isinstance(event, Submitted) and event.header.capability == CURSED for event in events)


class FailsToDecide(Scheduler):
    """Cannot decide on one capability."""

    def step(self, events: Iterable[Event], now: int) -> Decisions:
        events = list(events)
        if cursed(events):
            raise RuntimeError("never thought of that")
        return super().step(events, now)


class FailsToBeStored(Scheduler):
    """Decides on one capability what cannot be written."""

    def step(self, events: Iterable[Event], now: int) -> Decisions:
        events = list(events)
        decisions = super().step(events, now)
        if cursed(events):
            odd: Any = object()
            decisions.transitions.append(TaskTransition("x", odd, 0, None, None, None, None))
        return decisions


class FailsForAWhile(Scheduler):
    """Fails in every pass of its first terms, whatever the input is."""

    terms = 0

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        type(self).terms += 1

    def step(self, events: Iterable[Event], now: int) -> Decisions:
        if self.terms < 4:
            raise RuntimeError("not in the mood")
        return super().step(events, now)


@asynccontextmanager
async def dispatcher_of(url: str, watching: Watching, *pools: str) -> AsyncIterator[Callable[[], list[str]]]:
    stop = asyncio.Event()
    dispatcher = Dispatcher(DispatcherSettings(redis_url=url, pools=pools), lambda _: watching)
    serving = asyncio.create_task(dispatcher.run(stop))
    try:
        yield dispatcher.problems
    finally:
        stop.set()
        await serving


@pytest.mark.parametrize("scheduler", [FailsToDecide, FailsToBeStored])
async def test_an_entry_on_which_the_leader_fails_again_and_again_is_rejected_and_the_others_are_taken(
    redis: Redis, redis_url: str, pool: str, monkeypatch: pytest.MonkeyPatch, scheduler: type[Scheduler]
) -> None:
    names, watching = PoolNames(check_pool(pool)), Watching()
    monkeypatch.setattr(pool_module, "Scheduler", scheduler)
    async with Client(redis_url, pool=pool) as bus:
        good = [TaskCreate(capability="t.none", payload=n) for n in range(30)]
        await bus.submit_many([*good[:20], TaskCreate(capability=CURSED), *good[20:]])
        async with dispatcher_of(redis_url, watching, pool) as problems:

            async def settled() -> bool:
                return await redis.xlen(names.rejected) == 1 and (await bus.queue_status()).waiting == 30

            await eventually(settled)
            assert (await bus.queue_status()).unread == 0
            entries: Any = await redis.xrange(names.rejected)
            said = from_json(entries[0][1][DATA_FIELD.encode()])
            assert CURSED in said["raw"]
            assert "RuntimeError('never thought of that')" in said["reason"] or "serialize" in said["reason"]
            assert watching.defects == 2, "once among others, once alone"
            await eventually(lambda: not problems())


async def test_a_defect_that_has_nothing_to_do_with_the_input_costs_no_input(
    redis: Redis, redis_url: str, pool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names, watching = PoolNames(check_pool(pool)), Watching()
    FailsForAWhile.terms = 0
    monkeypatch.setattr(pool_module, "Scheduler", FailsForAWhile)
    async with Client(redis_url, pool=pool) as bus:
        await bus.submit_many(TaskCreate(capability="t.none", payload=n) for n in range(30))
        async with dispatcher_of(redis_url, watching, pool) as problems:
            ill = await eventually(problems)
            await eventually(lambda: any("not in the mood" in problem for problem in problems()) or not ill)

            async def settled() -> bool:
                return (await bus.queue_status()).waiting == 30

            await eventually(settled)
            assert watching.defects == 3
            assert await redis.xlen(names.rejected) == 0
            await eventually(lambda: not problems())


async def test_a_defect_in_one_pool_leaves_the_others_of_the_process_alone(
    redis: Redis, redis_url: str, pool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FailsInOne(Scheduler):
        def step(self, events: Iterable[Event], now: int) -> Decisions:
            events = list(events)
            if any(isinstance(event, Submitted) and event.task_id.startswith(f"{pool}.") for event in events):
                raise RuntimeError("always")
            return super().step(events, now)

    monkeypatch.setattr(pool_module, "Scheduler", FailsInOne)
    other, watching = f"{pool}x", Watching()
    async with Client(redis_url, pool=other) as bus, dispatcher_of(redis_url, watching, pool, other):
        await bus.submit("t.x", pool=pool)
        await eventually(lambda: watching.defects >= 2)
        async with wire_agent(redis, other, "t.x") as agent:
            handle = await bus.submit("t.x")
            await agent.complete(await agent.next(), "well")
            assert await handle.result(timeout=30) == "well"


async def test_the_pause_grows_with_defects_and_not_with_the_absence_of_the_server(
    redis_url: str, pool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    for error in (RedisConnectionError("away"), ValueError("a defect")):
        stop = asyncio.Event()
        dispatcher = Dispatcher(DispatcherSettings(redis_url=redis_url, pools=(pool,)), lambda _: Watching())
        [candidate] = dispatcher._pools

        async def failing(error: Exception = error) -> None:
            raise error

        async def noted(stop: asyncio.Event, seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) % 10 == 0:
                stop.set()

        monkeypatch.setattr(candidate._leadership, "acquire", failing)
        monkeypatch.setattr(pool_module, "_wait", noted)
        await dispatcher.run(stop)
    assert max(pauses[:10]) <= 0.5
    assert 5 < max(pauses[10:]) < 15
    assert pauses[10] < 0.5


async def test_after_a_conflict_the_lease_is_given_back_at_once(redis: Redis, redis_url: str, pool: str) -> None:
    names, watching = PoolNames(check_pool(pool)), Watching()
    patient = timedelta(minutes=5)
    async with (
        running_dispatcher(redis_url, pool, observer=watching, leader_lease=patient),
        Client(redis_url, pool=pool) as bus,
    ):
        handle = await bus.submit("t.none")

        async def accepted() -> bool:
            return bool(await redis.exists(names.task(handle.id)))

        await eventually(accepted)
        await redis.hset(names.task(handle.id), "state", "PENDING/7//")
        cancel = CancelTasks(task_ids=(handle.id,))
        await redis.xadd(names.commands, {DATA_FIELD: cancel.model_dump_json()})
        await eventually(lambda: len(watching.epochs) == 2)
        await eventually(lambda: _cancelled(redis, names, handle.id))


async def test_a_lead_that_is_lost_again_and_again_is_won_again_at_once(
    redis: Redis, redis_url: str, pool: str
) -> None:
    names, watching = PoolNames(check_pool(pool)), Watching()
    async with running_dispatcher(redis_url, pool, observer=watching):
        for lost in range(8):
            await eventually(lambda lost=lost: sum(map(bool, watching.epochs)) > lost, timeout=3)  # type: ignore[misc]
            await redis.delete(names.leader)


async def _cancelled(redis: Redis, names: PoolNames, task_id: str) -> bool:
    return str(await redis.hget(names.task(task_id), "state")).startswith("b'CANCELLED")
