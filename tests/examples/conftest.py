"""A newcomer for each example."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.docs.newcomer import Newcomer, newcomer_at


@pytest.fixture
async def newcomer(redis_url: str, tmp_path: Path) -> AsyncIterator[Newcomer]:
    """Provide somebody who does what the head of an example says."""
    async with newcomer_at(redis_url, tmp_path) as somebody:
        yield somebody
