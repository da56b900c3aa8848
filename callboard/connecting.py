"""A client for one command, and ids that are checked before a server is asked."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bus.client import Client
from bus.ids import DEFAULT_POOL, task_pool
from callboard.failures import UsageError


@asynccontextmanager
async def connected(url: str | None, pool: str | None = None) -> AsyncIterator[Client]:
    """Provide a client. Raises `UsageError` for a URL or a pool that cannot be one, else what `Client` raises."""
    try:
        client = Client(url, pool=pool or DEFAULT_POOL)
    except ValueError as error:
        raise UsageError(f"{error}: correct --redis-url, --pool, or CALLBOARD_REDIS_URL") from None
    async with client:
        yield client


def check_task_id(task_id: str) -> None:
    """Raise `UsageError` if `task_id` cannot be a task's."""
    try:
        task_pool(task_id)
    except ValueError as error:
        raise UsageError(f"{error}: `callboard tasks list` shows ids") from None
