"""Where tasks go, and when they are refused: sticky keys, failing fast, bounds, and what the record says of it."""

import asyncio
from datetime import timedelta

import pytest

from agent_runtime import Agent, TaskContext, capability
from bus import Client, QueueFullError, SubmissionError, TaskCreate, TaskFailedError, TaskPriority
from tests.fundamentals.conftest import RunAgent, running_agent
from tests.support.bus import running_dispatcher
from tests.support.waiting import eventually


class Model(Agent):
    """Says which of several agents it is."""

    def __init__(self, name: str, slots: int = 2) -> None:
        self.name = name
        self.slots = slots

    @capability("ask")
    async def ask(self, task: str) -> str:
        return self.name

    @capability("narrow", max_pending=3)
    async def narrow(self, task: int, ctx: TaskContext) -> int:
        await asyncio.sleep(0.02)
        return task


class European(Model):
    attributes = {"region": "eu"}  # noqa: RUF012 - as an author writes it


async def test_a_sticky_key_goes_back_to_the_agent_that_had_it(bus: Client, run_agent: RunAgent) -> None:
    await run_agent(Model("a"))
    first = await bus.submit("ask", "x", sticky="conversation 7")
    assert await first.result(timeout=30) == "a"
    await run_agent(Model("b", slots=9))
    for _ in range(5):
        handle = await bus.submit("ask", "y", sticky="conversation 7")
        assert await handle.result(timeout=30) == "a"
    assert await (await bus.submit("ask", "y")).result(timeout=30) == "b", "the one with most room"
    because = (await handle.get()).placed_because
    assert because == "it had the task of sticky key 'conversation 7' before; 2 could do it: 2 free slots"


async def test_the_record_says_why_there(bus: Client, run_agent: RunAgent) -> None:
    await run_agent(Model("a"))
    await run_agent(European("b"))
    handle = await bus.submit("ask", "x", prefers=["region ~ eu:10"])
    assert await handle.result(timeout=30) == "b"
    because = (await handle.get()).placed_because
    assert because == "the best of 2 that could do it: 2 free slots, region ~ eu:10 met"


async def test_what_nobody_could_ever_run_says_so_and_fails_if_asked_to(redis_url: str, pool: str) -> None:
    async with (
        running_dispatcher(redis_url, pool, fail_fast_grace=timedelta(0)),
        Client(redis_url, pool=pool) as bus,
        running_agent(bus, European("a")),
    ):
        hopeless = await bus.submit("ask", "x", requires=["region == mars"], fail_fast=True)
        with pytest.raises(TaskFailedError, match="no registered agent could ever run this") as failure:
            await hopeless.result(timeout=30)
        assert failure.value.reason == "impossible"
        assert "which lacks region == mars" in str(failure.value)
        plan = await bus.plan(
            TaskCreate.model_validate({"capability": "ask", "requires": ["region == mars"], "fail_fast": True})
        )
        assert plan.text.startswith("no registered agent could ever run this")
        assert plan.text.endswith("would fail at once")
        fine = await bus.submit("ask", "x", fail_fast=True)
        assert await fine.result(timeout=30) == "a"


async def test_a_full_queue_refuses_its_submitter_and_lets_in_again(redis_url: str, pool: str) -> None:
    async with running_dispatcher(redis_url, pool), Client(redis_url, pool=pool) as bus:
        async with running_agent(bus, Model("a", slots=1)):
            await bus.drain_agent((await bus.agents())[0].agent_id)

            async def in_force() -> bool:
                return await bus._link.redis.hlen(f"callboard:{{{pool}}}:notes:bounds") > 0

            await eventually(in_force)
            with pytest.raises(QueueFullError, match="3 tasks of narrow in pool") as full:
                await bus.submit_many(TaskCreate(capability="narrow", payload=n) for n in range(5))
            assert [handle is not None for handle in full.value.handles] == [True, True, True, False, False]
            assert (full.value.capability, full.value.bound, full.value.pending) == ("narrow", 3, 3)
            with pytest.raises(QueueFullError):
                await bus.submit("narrow", 9)
            await bus.submit("ask", "another capability has room")
        async with running_agent(bus, Model("b", slots=1)):
            handles = await bus.submit_many(
                [TaskCreate(capability="narrow", payload=n) for n in range(20)], wait_for_room=20
            )
            assert [await handle.result(timeout=30) for handle in handles] == list(range(20))


async def test_each_of_many_coroutines_is_told_of_its_own_task(redis_url: str, pool: str) -> None:
    async with running_dispatcher(redis_url, pool, max_pending="5"), Client(redis_url, pool=pool) as bus:
        await eventually(lambda: bus._link.redis.hlen(f"callboard:{{{pool}}}:notes:bounds"))
        said = await asyncio.gather(*(bus.submit("later", n) for n in range(40)), return_exceptions=True)
        refused = [one for one in said if isinstance(one, QueueFullError)]
        assert len(refused) == 35
        assert {(one.capability, one.bound) for one in refused} == {(None, 5)}
        assert sum((await bus.queue_status()).model_dump(include={"waiting", "unread"}).values()) == 5


async def test_the_order_follows_a_configured_head_start_in_its_pool(redis_url: str, pool: str) -> None:
    starts = f"MEDIUM=0,{pool}:HIGH=0,{pool}:URGENT=0s"
    async with running_dispatcher(redis_url, pool, head_starts=starts), Client(redis_url, pool=pool) as bus:
        levels = [TaskPriority.LOW, TaskPriority.MEDIUM, TaskPriority.HIGH, TaskPriority.URGENT]
        handles = []
        for level in levels:
            handles.append(await bus.submit("ask", level, priority=level))
            await bus.get(handles[-1].id, patience=10)
        async with running_agent(bus, Model("a", slots=1)):
            for handle in handles:
                await handle.result(timeout=30)
        began = [(await handle.get()).assigned_at or 0 for handle in handles]
        assert began == sorted(began), "without head starts it is first come, first served"


async def test_what_cannot_be_right_is_refused_with_its_remedy(bus: Client) -> None:
    assert TaskCreate.model_validate({"capability": "ask", "priority": "high"}).priority is TaskPriority.HIGH
    with pytest.raises(SubmissionError, match="leave it out for no limit"):
        await bus.submit("ask", "x", run_timeout=0)
    with pytest.raises(SubmissionError, match="leave it out for no limit"):
        await bus.submit("ask", "x", queue_timeout=0)
    with pytest.raises(SubmissionError, match="NaN or infinite"):
        await bus.submit("ask", float("nan"))
    with pytest.raises(SubmissionError, match="write TaskCreate"):
        await bus.submit_many([1])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="redis://host:port"):
        Client(url="http://x")
