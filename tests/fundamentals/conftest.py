"""What every story of the tour needs: a client, a dispatcher that leads, and a way to run agents."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from agent_runtime import Agent
from agent_runtime.settings import AgentSettings
from agent_runtime.worker import Worker
from bus import Client
from bus.connection import connect
from bus.ids import check_pool
from bus.names import PoolNames
from dispatcher.audit.auditor import Auditor
from tests.support.bus import running_dispatcher

RunAgent = Callable[[Agent], Awaitable[Worker]]


@pytest.fixture
async def bus(redis_url: str, pool: str) -> AsyncIterator[Client]:
    """Provide a client of a pool that a dispatcher leads, and in which nothing is wrong when the story is over."""
    async with (
        running_dispatcher(redis_url, pool),
        Client(redis_url, pool=pool) as client,
        connect(redis_url, name="audit") as redis,
    ):
        yield client
        assert await Auditor(redis, PoolNames(check_pool(pool)), pause_s=0.3).run() == []


@pytest.fixture
async def run_agent(bus: Client) -> AsyncIterator[RunAgent]:
    """Provide a function that runs an agent until the test ends, and returns when it has signed in."""
    async with AsyncExitStack() as stack:

        async def run(agent: Agent) -> Worker:
            return await stack.enter_async_context(running_agent(bus, agent))

        yield run


@asynccontextmanager
async def running_agent(bus: Client, agent: Agent) -> AsyncIterator[Worker]:
    """Run an agent in this loop while the block runs, as its process would."""
    worker = Worker(agent, AgentSettings(redis_url=bus.url, pool=bus.pool))
    stop = asyncio.Event()
    running = asyncio.create_task(worker.run(stop))
    try:
        async with asyncio.timeout(30):
            await worker.ready.wait()
        yield worker
    finally:
        stop.set()
        await running
