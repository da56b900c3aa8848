"""A task may start tasks of its own: they are its children, end with it if it ends badly, and need no slot of its."""

import asyncio
from collections import Counter
from concurrent.futures import CancelledError
from datetime import timedelta

import pytest

from agent_runtime import Agent, TaskContext, capability
from agent_runtime.settings import AgentSettings
from agent_runtime.worker import Worker
from bus import Client, SubmissionError, TaskCancelledError, TaskCreate, TaskFailedError, TaskStatus
from tests.fundamentals.conftest import RunAgent
from tests.support.waiting import eventually


class Office(Agent):
    """One slot: whoever waits for a child with it waits for ever."""

    slots = 1

    def __init__(self) -> None:
        self.done: Counter[str] = Counter()
        self.begun = asyncio.Event()
        self.stopped = asyncio.Event()
        self.threads_stopped = asyncio.Event()

    @capability("tree")
    async def tree(self, depth: int, ctx: TaskContext) -> int:
        if depth == 0:
            return 1
        calls = [ctx.call(Office.tree, depth - 1, release_slot=True, metadata={"n": n}) for n in range(2)]
        return sum(await asyncio.gather(*calls)) + 1

    @capability("selfish")
    async def selfish(self, task: None, ctx: TaskContext) -> str:
        return str(await ctx.call("leaf", "x"))

    @capability("leaf")
    async def leaf(self, name: str) -> str:
        self.done[name] += 1
        return name.upper()

    @capability("fan.out")
    async def fan_out(self, children: int, ctx: TaskContext) -> int:
        handles = await ctx.submit_many(TaskCreate(capability="leaf", payload=str(n)) for n in range(children))
        async with ctx.without_slot():
            found = [await handle.result() async for handle in ctx.as_completed(handles)]
        return len(set(found))

    @capability("unlucky")
    async def unlucky(self, task: None, ctx: TaskContext) -> str:
        first = await ctx.call("leaf", "first", release_slot=True)
        second = await ctx.call("moody", None, release_slot=True, max_attempts=1)
        if ctx.attempt == 1:
            raise ValueError("not today")
        return f"{first} {second}"

    @capability("moody")
    async def moody(self, task: None, ctx: TaskContext) -> str:
        self.done["moody"] += 1
        if self.done["moody"] == 1:
            raise ValueError("not the first time")
        return "well"

    @capability("wait")
    async def wait(self, task: None) -> None:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.stopped.set()

    @capability("wait.for.child")
    async def wait_for_child(self, task: None, ctx: TaskContext) -> None:
        await ctx.call("wait", release_slot=True)

    @capability("send.off")
    async def send_off(self, task: None, ctx: TaskContext) -> str:
        return (await ctx.submit("leaf", "later")).id

    @capability("family")
    async def family(self, task: str, ctx: TaskContext) -> list[str]:
        try:
            below = await ctx.call(Office.family, task, release_slot=True)
        except SubmissionError:
            below = []
        return [f"{ctx.depth} {ctx.trace}", *below]

    @capability("plain")
    def plain(self, name: str, ctx: TaskContext) -> str:
        handle = ctx.wait(ctx.submit("leaf", name))
        return str(ctx.wait(ctx.call("leaf", name * 2, release_slot=True)) + handle.id[:0])

    @capability("plain.wait")
    def plain_wait(self, task: None, ctx: TaskContext) -> None:
        try:
            ctx.wait(ctx.call("wait", release_slot=True))
        except CancelledError:
            self.threads_stopped.set()
            raise


@pytest.fixture
async def office(run_agent: RunAgent) -> Office:
    """Provide an agent of one slot, signed in."""
    agent = Office()
    await run_agent(agent)
    return agent


@pytest.mark.usefixtures("office")
async def test_a_tree_of_tasks_needs_no_more_than_one_slot(bus: Client) -> None:
    handle = await bus.submit(Office.tree, 5)
    assert await handle.result(timeout=60) == 63


@pytest.mark.usefixtures("office")
async def test_who_keeps_its_slot_while_it_waits_is_told_why_nothing_happens(bus: Client) -> None:
    parent = await bus.submit("selfish")
    await eventually(lambda: _children(bus, parent.id))
    (child,) = await bus.children(parent.id)
    found = await bus.explain(child.id)
    assert f"its parent {parent.id} keeps 1 slot of office-" in found.text
    assert "release_slot=True" in found.text
    await parent.cancel()


async def test_an_agent_tells_what_waits_for_children_apart_from_its_slots(bus: Client, office: Office) -> None:
    """The child has the slot that its parent has given up."""
    parent = await bus.submit("wait.for.child")
    async with asyncio.timeout(30):
        await office.begun.wait()

    async def tells() -> bool:
        (info,) = await bus.agents()
        load = info.workload
        return load is not None and (load.running, load.taken, load.waiting) == (2, 1, 1)

    await eventually(tells)
    await parent.cancel()


async def _children(bus: Client, task_id: str) -> int:
    return len(await bus.children(task_id))


@pytest.mark.usefixtures("office")
async def test_a_thousand_children_are_gathered_as_they_end(bus: Client) -> None:
    handle = await bus.submit("fan.out", 1000)
    assert await handle.result(timeout=60) == 1000
    assert (await handle.get()).children == 1000
    assert len(await bus.children(handle.id, limit=2000)) == 1000


async def test_a_parent_that_is_tried_again_finds_its_children(bus: Client, office: Office) -> None:
    """What has a result is not done again; what failed is."""
    handle = await bus.submit("unlucky", max_attempts=5)
    assert await handle.result(timeout=30) == "FIRST well"
    assert office.done == {"first": 1, "moody": 2}


async def test_children_are_cancelled_with_their_parent(bus: Client, office: Office) -> None:
    parent = await bus.submit("wait.for.child")
    async with asyncio.timeout(30):
        await office.begun.wait()
        await parent.cancel()
        with pytest.raises(TaskCancelledError):
            await parent.result()
        await office.stopped.wait()
    (child,) = await bus.children(parent.id)
    with pytest.raises(TaskCancelledError, match=f"its parent {parent.id} was cancelled"):
        await bus.handle(child.id).result(timeout=30)


@pytest.mark.usefixtures("office")
async def test_children_that_nobody_waits_for_outlive_a_parent_that_has_completed(bus: Client) -> None:
    parent = await bus.submit("send.off")
    child = bus.handle(await parent.result(timeout=30))
    assert await child.result(timeout=30) == "LATER"
    assert (await child.get()).parent == parent.id


@pytest.mark.usefixtures("office")
async def test_a_trace_is_inherited_and_depth_is_limited(bus: Client) -> None:
    handle = await bus.submit(Office.family, "x", trace="00-abc-def-01", fairness_key="k")
    lines = await handle.result(timeout=30)
    assert lines == [f"{depth} 00-abc-def-01" for depth in range(17)]
    (child,) = await bus.children(handle.id)
    record = await bus.get(child.id)
    assert (record.parent, record.depth, record.trace, record.spec.fairness_key) == (
        handle.id,
        1,
        "00-abc-def-01",
        "k",
    )


async def test_a_plain_def_has_children_too(bus: Client, office: Office) -> None:
    handle = await bus.submit("plain", "ab")
    assert await handle.result(timeout=30) == "ABAB"
    waiting = await bus.submit("plain.wait")
    async with asyncio.timeout(30):
        await office.begun.wait()
        await waiting.cancel()
        await office.threads_stopped.wait()
        await office.stopped.wait()


class Failing(Agent):
    slots = 3

    @capability("fails")
    async def fails(self, task: None) -> None:
        raise ValueError("no")

    @capability("asks")
    async def asks(self, task: None, ctx: TaskContext) -> str:
        try:
            await ctx.call("fails", max_attempts=1)
        except TaskFailedError as error:
            return f"{error.reason}: {error.error.message if error.error else ''}"
        return "well"

    @capability("elsewhere")
    async def elsewhere(self, task: None, ctx: TaskContext) -> None:
        await ctx.submit("fails", pool="other")


async def test_a_child_that_fails_raises_where_it_is_waited_for(bus: Client, run_agent: RunAgent) -> None:
    await run_agent(Failing())
    assert await (await bus.submit("asks")).result(timeout=30) == "error: no"


async def test_a_child_lives_in_the_pool_of_its_parent(bus: Client, run_agent: RunAgent) -> None:
    await run_agent(Failing())
    with pytest.raises(TaskFailedError, match="a child lives in the pool of its parent"):
        await (await bus.submit("elsewhere", max_attempts=1)).result(timeout=30)


class Caller(Agent):
    @capability("call.clerk")
    async def ask(self, name: str, ctx: TaskContext) -> str:
        return str(await ctx.call("slowly", name))


class Clerk(Agent):
    def __init__(self) -> None:
        self.begun = 0
        self.may_end = asyncio.Event()

    @capability("slowly")
    async def slowly(self, name: str) -> str:
        self.begun += 1
        await self.may_end.wait()
        return name.upper()


async def test_a_parent_that_moves_to_another_agent_waits_for_the_same_child(bus: Client, run_agent: RunAgent) -> None:
    clerk = Clerk()
    await run_agent(clerk)
    first = Worker(Caller(), AgentSettings(redis_url=bus.url, pool=bus.pool, grace=timedelta(0)))
    stop = asyncio.Event()
    running = asyncio.create_task(first.run(stop))
    parent = await bus.submit("call.clerk", "x")
    await eventually(lambda: clerk.begun)
    stop.set()
    await running
    second = await run_agent(Caller())
    await eventually(lambda: _runs_on(bus, parent.id, second.agent_id))
    clerk.may_end.set()
    assert await parent.result(timeout=30) == "X"
    assert clerk.begun == 1


async def _runs_on(bus: Client, task_id: str, agent_id: str) -> bool:
    task = await bus.get(task_id)
    return task.agent_id == agent_id and task.status is TaskStatus.RUNNING
