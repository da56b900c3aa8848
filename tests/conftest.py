"""Fixtures for every test: a real server, a client for it, and a pool of one's own."""

import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from redis.asyncio import Redis

from bus.connection import connect
from tests.support import workers
from tests.support.server import RunningServer, running_server

# How long one example takes is the machine's affair, and what else it does just then.
settings.register_profile("callboard", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("callboard")

_USED = pytest.StashKey[set[str]]()


@pytest.fixture(scope="session")
def redis_server(pytestconfig: pytest.Config) -> Iterator[RunningServer]:
    """Provide the server of this run; `tests.support.server` tells which."""
    with running_server() as server:
        said = f"server: {server.kind} ({server.origin})"
        pytestconfig.stash[_USED].add(said)
        getattr(pytestconfig, "workeroutput", {})["server"] = said
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


def pytest_configure(config: pytest.Config) -> None:
    """Make a place for what servers there were."""
    config.stash[_USED] = set()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the tests in the order in which workers take them."""
    workers.prepare(config, items)


def pytest_xdist_auto_num_workers() -> int:
    """Tell how many workers `-n auto` means."""
    return workers.number()


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> workers.AloneLast | None:
    """Provide the scheduler that knows the tests which are `alone`."""
    return workers.scheduler(config, log)


def pytest_testnodedown(node: Any) -> None:
    """Hear from a worker which server it had."""
    if said := getattr(node, "workeroutput", {}).get("server"):
        node.config.stash[_USED].add(said)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say which server the tests ran on, for their results hold for that one."""
    servers = config.stash[_USED]
    for said in sorted(servers):
        terminalreporter.write_line(said)
