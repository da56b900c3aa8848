"""Fixtures of the integration tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from bus.ids import check_pool
from bus.names import PoolNames
from tests.integration.releases import Site


@pytest.fixture
def site(redis: Redis, redis_url: str, pool: str, tmp_path: Path) -> Iterator[Site]:
    """Return a pool without any process yet; those that are started in it end with the test."""
    site = Site(redis, redis_url, PoolNames(check_pool(pool)), tmp_path)
    yield site
    for process in site.processes:
        process.close()
