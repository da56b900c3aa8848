"""A newcomer for each page."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.docs.newcomer import Newcomer, newcomer_at


@pytest.fixture
async def newcomer(redis_url: str, tmp_path: Path) -> AsyncIterator[Newcomer]:
    """Provide somebody who does what a page says."""
    async with newcomer_at(redis_url, tmp_path) as somebody:
        yield somebody
