import asyncio

import pytest

from bus.cancellation import connection_class
from bus.connection import connect


async def test_a_command_that_is_cancelled_at_any_moment_is_cancelled(redis_url: str) -> None:
    """Seen failing with redis-py's own connections: on Python 3.11 more than half of these were swallowed."""
    for moment in range(40):
        client = connect(redis_url, name="test")

        async def work(client: object = client) -> None:
            for _ in range(20):
                await client.xlen("nothing")  # type: ignore[attr-defined]

        working = asyncio.create_task(work())
        for _ in range(moment):
            await asyncio.sleep(0)
        if not working.done():
            working.cancel()
            with pytest.raises(asyncio.CancelledError):
                await working
        await client.aclose()


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("redis://localhost:6379/0", "CancellableConnection"),
        ("rediss://localhost:6379/0", "CancellableSSLConnection"),
        ("unix:///run/redis.sock", "CancellableUnixDomainSocketConnection"),
    ],
)
def test_every_kind_of_url_gets_connections_of_its_kind(url: str, name: str) -> None:
    assert connection_class(url).__name__ == name
    client = connect(url, name="test")
    assert client.connection_pool.connection_class is connection_class(url)
    client.connection_pool.make_connection()  # type: ignore[no-untyped-call]
