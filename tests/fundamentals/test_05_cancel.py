"""A task can be cancelled whatever its state; the code that works on it is told."""

import asyncio
import threading

import pytest

from agent_runtime import Agent, capability
from bus import Client, TaskCancelledError, TaskStatus
from tests.fundamentals.conftest import RunAgent


class Patient(Agent):
    slots = 2

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.stopped = asyncio.Event()

    @capability("wait")
    async def wait(self, task: None) -> None:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.stopped.set()


class Stubborn(Agent):
    def __init__(self) -> None:
        self.begun = threading.Event()
        self.enough = threading.Event()

    @capability("sleep")
    def sleep(self, task: None) -> None:
        """Never ask `ctx.cancelled`, as such a function should."""
        self.begun.set()
        self.enough.wait(30)


async def test_a_running_task_is_stopped_where_it_runs(bus: Client, run_agent: RunAgent) -> None:
    agent = Patient()
    await run_agent(agent)
    handle = await bus.submit("wait")
    async with asyncio.timeout(30):
        await agent.begun.wait()
        await handle.cancel("changed my mind")
        with pytest.raises(TaskCancelledError, match="changed my mind"):
            await handle.result()
        await agent.stopped.wait()


async def test_a_waiting_task_is_cancelled_before_any_agent_sees_it(bus: Client) -> None:
    handle = await bus.submit("nobody.can.do.this")
    await handle.cancel()
    with pytest.raises(TaskCancelledError):
        await handle.result(timeout=30)
    assert (await handle.get()).status is TaskStatus.CANCELLED


async def test_it_is_seen_who_cancelled_a_task_and_how_far_that_is(bus: Client, run_agent: RunAgent) -> None:
    agent = Patient()
    await run_agent(agent)
    handle = await bus.submit("wait")
    async with asyncio.timeout(30):
        await agent.begun.wait()
    report = await bus.cancel_and_wait([handle.id], "changed my mind", by="alice")
    assert report.cancelled == (handle.id,)
    cancellation = (await handle.get()).cancellation
    assert cancellation is not None
    assert (cancellation.by, cancellation.reason, cancellation.outcome) == ("alice", "changed my mind", "finished")
    assert cancellation.requested_at <= (cancellation.delivered_at or 0) <= (cancellation.acknowledged_at or 0)


async def test_what_does_not_stop_in_time_is_given_up(bus: Client, run_agent: RunAgent) -> None:
    agent = Stubborn()
    await run_agent(agent)
    handle = await bus.submit("sleep")
    assert await asyncio.to_thread(agent.begun.wait, 10)
    try:
        report = await bus.cancel_and_wait([handle.id], grace=0.2)
        assert report.given_up == (handle.id,)
        with pytest.raises(TaskCancelledError, match="may still run") as caught:
            await handle.result(timeout=30)
        assert caught.value.given_up
    finally:
        agent.enough.set()
