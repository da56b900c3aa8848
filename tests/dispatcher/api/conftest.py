"""Two API processes' worth of services in this loop, a pool that is led, and clients over real sockets."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest

from bus import Client
from dispatcher.api.service import ApiService
from dispatcher.api.settings import ApiSettings
from tests.support.bus import WireAgent, running_dispatcher


@asynccontextmanager
async def serving(url: str, pool: str, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Serve the API while the block runs; provides a client of it."""
    service = ApiService(ApiSettings(redis_url=url, pool=pool, **{"port": 0, **settings}))
    stop, ready = asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(service.run(stop, ready))
    try:
        async with asyncio.timeout(30):
            await ready.wait()
        limits = httpx.Limits(max_connections=200)
        async with httpx.AsyncClient(base_url=f"{service.url}/api/v1", timeout=20, limits=limits) as client:
            yield client
    finally:
        stop.set()
        async with asyncio.timeout(30):
            await running


class Alternating:
    """Sends each request to the next of several API processes."""

    def __init__(self, *clients: httpx.AsyncClient) -> None:
        self._clients = clients
        self._turn = 0

    def __getattr__(self, name: str) -> Any:
        self._turn += 1
        return getattr(self._clients[self._turn % len(self._clients)], name)


@pytest.fixture
async def led(redis_url: str, pool: str) -> AsyncIterator[str]:
    """Provide a pool that a dispatcher leads."""
    async with running_dispatcher(redis_url, pool):
        yield pool


@pytest.fixture
async def api(redis_url: str, led: str) -> AsyncIterator[Any]:
    """Provide a client that alternates between two API processes of a pool that is led."""
    async with AsyncExitStack() as stack:
        yield Alternating(
            await stack.enter_async_context(serving(redis_url, led)),
            await stack.enter_async_context(serving(redis_url, led)),
        )


@pytest.fixture
async def orphan(redis_url: str, pool: str) -> AsyncIterator[httpx.AsyncClient]:
    """Provide a client of the API of a pool that nobody leads."""
    async with serving(redis_url, pool) as client:
        yield client


@pytest.fixture
async def bus(redis_url: str, pool: str) -> AsyncIterator[Client]:
    """Provide a client of the bus."""
    async with Client(redis_url, pool=pool) as client:
        yield client


async def submitted(api: Any, **fields: Any) -> str:
    """Submit one task; return its id."""
    task = {"capability": "text.count", "payload": {"text": "a b"}, **fields}
    answer = await api.post("/tasks/dispatch", json=task)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["tasks"][0]["id"])


async def failed(api: Any, agent: WireAgent, **fields: Any) -> str:
    """Let one task fail in `agent`; return its id."""
    task_id = await submitted(api, max_attempts=1, **fields)
    given = await agent.next()
    agent.held.pop(task_id, None)
    failure = {"task_id": task_id, "attempt": given.attempt, "status": "FAILED"}
    await agent.report(results=({**failure, "error": {"type": "ValueError", "message": "no"}},))
    ended = await api.get(f"/tasks/{task_id}/result", params={"wait": 10})
    assert ended.json()["status"] == "FAILED"
    return task_id


def assert_problem(answer: httpx.Response, slug: str, status: int, field: str | None = None) -> Any:
    """Check that an answer is the problem `slug`, and return it."""
    problem = answer.json()
    assert (answer.status_code, problem["type"]) == (status, f"urn:callboard:problem:{slug}"), problem
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert problem["status"] == status
    if field is not None:
        assert field in {one["field"] for one in problem["errors"]}, problem
    if status in (429, 503):
        assert int(answer.headers["retry-after"]) >= 1
    return problem
