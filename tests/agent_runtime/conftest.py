"""Fixtures of the runtime's tests: a leader by hand, and workers that are stopped after the test."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import pytest
from redis.asyncio import Redis

from agent_runtime import Agent
from agent_runtime.observer import RuntimeObserver
from agent_runtime.process import ExitCode
from agent_runtime.settings import AgentSettings
from agent_runtime.worker import Worker
from tests.agent_runtime.leader import HandLeader, settings_of


class RunningWorker:
    """A worker as a task of this test's loop."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.stop = asyncio.Event()
        self.task = asyncio.create_task(worker.run(self.stop))

    async def ended(self) -> ExitCode:
        async with asyncio.timeout(30):
            return await self.task


StartWorker = Callable[..., RunningWorker]


@pytest.fixture
def leader(redis: Redis, pool: str) -> HandLeader:
    return HandLeader(redis, pool)


@pytest.fixture
async def start_worker(redis_url: str, pool: str) -> AsyncIterator[StartWorker]:
    """Provide a function that starts a worker for an agent; the settings' fields may be given."""
    started: list[RunningWorker] = []

    def start(agent: Agent, observer: RuntimeObserver | None = None, **fields: Any) -> RunningWorker:
        settings = AgentSettings(**settings_of(redis_url, pool, **fields))
        running = RunningWorker(Worker(agent, settings, observer))
        started.append(running)
        return running

    yield start
    for running in started:
        running.task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await running.task
