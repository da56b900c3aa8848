"""A server of a test's own: one that may be made to refuse, for the other tests share theirs."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from bus.connection import connect
from bus.embedded import EmbeddedServer


@pytest.fixture
async def own_url(tmp_path: Path) -> AsyncIterator[str]:
    server = EmbeddedServer(data_dir=tmp_path, persistence="none")
    await server.start()
    try:
        yield server.url
    finally:
        await server.stop()


@pytest.fixture
async def own(own_url: str) -> AsyncIterator[Redis]:
    async with connect(own_url, name="test") as client:
        yield client
