"""Children in the ledger, from an agent that only knows the wire: lists of them, and how long they are kept."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from bus import Client, TaskCancelledError, TaskFailedError, TaskStatus
from bus.messages import Assignment, SubmitTask, TaskUpdate
from bus.states import TaskPriority
from tests.support.bus import WireAgent, running_dispatcher, wire_agent
from tests.support.waiting import eventually


@pytest.fixture
async def bus(redis_url: str, pool: str) -> AsyncIterator[Client]:
    async with running_dispatcher(redis_url, pool), Client(redis_url, pool=pool) as client:
        yield client


@pytest.fixture
async def agent(bus: Client, redis: Redis) -> AsyncIterator[WireAgent]:
    async with wire_agent(redis, bus.pool, "do", slots=2) as found:
        yield found


async def submit(agent: WireAgent, parent: Assignment, name: str, *, depth: int = 1, capability: str = "do") -> str:
    """Submit a child as a program would that leaves out what may be left out."""
    task_id = f"{agent.names.pool}.{name}"
    child = SubmitTask(id=task_id, capability=capability, parent=parent.task_id, depth=depth)
    await agent.publish(agent.names.submissions(TaskPriority.MEDIUM), child)
    return task_id


async def test_children_are_listed_as_long_as_their_parent_is_kept(bus: Client, agent: WireAgent) -> None:
    handle = await bus.submit("do")
    parent = await agent.next()
    children = [await submit(agent, parent, name) for name in ("c1", "c2", "c3")]
    await eventually(lambda: _listed(bus, handle.id, children))
    index = agent.names.children(handle.id)
    assert await agent.redis.pttl(index) == -1
    assert (await handle.get()).children == 3
    await agent.complete(parent)
    await handle.result(timeout=30)
    assert await agent.redis.pttl(index) > 0
    assert await bus.children(handle.id, limit=1) == (await bus.children(handle.id))[:1]


async def _listed(bus: Client, parent: str, children: list[str]) -> bool:
    return {task.id for task in await bus.children(parent)} == set(children)


async def test_a_child_that_comes_after_its_parents_end_is_listed_for_the_retention(
    bus: Client, agent: WireAgent
) -> None:
    handle = await bus.submit("do")
    parent = await agent.next()
    await agent.complete(parent)
    await handle.result(timeout=30)
    child = await submit(agent, parent, "late")
    await eventually(lambda: _listed(bus, handle.id, [child]))
    assert await agent.redis.pttl(agent.names.children(handle.id)) > 0
    assert (await bus.get(child)).status is not TaskStatus.CANCELLED


async def test_a_child_that_comes_after_its_parents_cancel_is_cancelled(bus: Client, agent: WireAgent) -> None:
    handle = await bus.submit("do")
    parent = await agent.next()
    await handle.cancel()
    with pytest.raises(TaskCancelledError):
        await handle.result(timeout=30)
    child = await submit(agent, parent, "late")
    with pytest.raises(TaskCancelledError, match=r"its parent .* was cancelled"):
        await bus.handle(child).result(timeout=30)


async def test_a_child_that_says_a_wrong_depth_is_rejected(bus: Client, agent: WireAgent) -> None:
    await bus.submit("do")
    parent = await agent.next()
    child = await submit(agent, parent, "odd", depth=3)
    with pytest.raises(TaskFailedError, match="its depth is 3, and must be 1"):
        await bus.handle(child).result(timeout=30)


async def test_a_waiting_parent_is_shown_as_one_and_takes_no_slot(bus: Client, agent: WireAgent) -> None:
    handles = [await bus.submit("do") for _ in range(3)]
    first = await agent.next()
    await agent.next()
    assert agent.assignments.empty()
    await agent.report(updates=(TaskUpdate(task_id=first.task_id, attempt=1, waiting=True),))
    third = await agent.next()
    assert third.task_id == handles[2].id
    assert (await bus.get(first.task_id)).waiting


async def test_a_successor_cuts_a_tree_that_lost_its_root_while_nobody_led(
    redis_url: str, redis: Redis, pool: str
) -> None:
    async with Client(redis_url, pool=pool) as bus:
        async with running_dispatcher(redis_url, pool), wire_agent(redis, pool, "do", lease=30) as agent:
            handle = await bus.submit("do")
            parent = await agent.next()
            child = await submit(agent, parent, "c", capability="nobody")
            await eventually(lambda: _listed(bus, handle.id, [child]))
            agent_names = agent.names
        # As a leader leaves it that dies between the parent's end and the child's.
        await redis.hset(agent_names.task(handle.id), "state", "CANCELLED/1//")
        await redis.zrem(agent_names.leases, handle.id)
        async with running_dispatcher(redis_url, pool), asyncio.timeout(30):
            with pytest.raises(TaskCancelledError, match=r"its parent .* was cancelled"):
                await bus.handle(child).result()
