"""A task can be cancelled whatever its state; the code that works on it is told."""

import asyncio

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


async def test_a_running_task_is_stopped_where_it_runs(bus: Client, run_agent: RunAgent) -> None:
    agent = Patient()
    await run_agent(agent)
    handle = await bus.submit("wait")
    async with asyncio.timeout(10):
        await agent.begun.wait()
        await handle.cancel("changed my mind")
        with pytest.raises(TaskCancelledError, match="changed my mind"):
            await handle.result()
        await agent.stopped.wait()


async def test_a_waiting_task_is_cancelled_before_any_agent_sees_it(bus: Client) -> None:
    handle = await bus.submit("nobody.can.do.this")
    await handle.cancel()
    with pytest.raises(TaskCancelledError):
        await handle.result(timeout=10)
    assert (await handle.get()).status is TaskStatus.CANCELLED
