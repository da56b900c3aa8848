"""Fixtures for every test: a real server, a client for it, and a pool of one's own."""

import uuid
from collections.abc import AsyncIterator, Iterator

import pytest
from redis.asyncio import Redis

from bus.connection import connect
from tests.support.server import RunningServer, running_server

_USED = pytest.StashKey[RunningServer]()


@pytest.fixture(scope="session")
def redis_server(pytestconfig: pytest.Config) -> Iterator[RunningServer]:
    """Provide the server of this run; `tests.support.server` tells which."""
    with running_server() as server:
        pytestconfig.stash[_USED] = server
        yield server


@pytest.fixture
def redis_url(redis_server: RunningServer) -> str:
    """Provide the URL of the server of this run."""
    return redis_server.url


@pytest.fixture(name="redis")
async def redis_client(redis_url: str) -> AsyncIterator[Redis]:
    """Provide a client that returns bytes and fails at once instead of retrying."""
    async with connect(redis_url, name="test", max_connections=64) as client:
        yield client


@pytest.fixture
def pool() -> str:
    """Provide the name of a pool that no other test uses, such as `t1a2b3c4`."""
    return f"t{uuid.uuid4().hex[:7]}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say which server the tests ran on, for their results hold for that one."""
    if (server := config.stash.get(_USED, None)) is not None:
        terminalreporter.write_line(f"server: {server.kind} ({server.origin})")
