"""What is published with FastStream by others is understood, framed as it is."""

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from bus.broker import make_broker, unframe


@pytest.mark.parametrize("headers", [{}, {"trace": "abc"}, {"grün": "ä"}])
async def test_the_body_of_a_faststream_publish_is_found_behind_its_headers(
    redis: Redis, redis_url: str, pool: str, headers: dict[str, str]
) -> None:
    broker = make_broker(redis_url)
    await broker.connect()
    await broker.publish({"capability": "a.b"}, stream=pool, headers=headers)
    entries: Any = await redis.xrange(pool)
    [(_, fields)] = entries
    assert unframe(fields[b"__data__"]) == b'{"capability":"a.b"}'
    await broker.stop()


@given(st.binary(max_size=60))
def test_bytes_that_are_no_frame_are_left_alone(raw: bytes) -> None:
    assert unframe(raw) == raw or raw.startswith(b"\x89BIN")


def test_a_frame_of_an_unknown_version_is_left_alone() -> None:
    raw = struct.pack(">8sHII", b"\x89BIN\r\n\x1a\n", 9, 18, 18) + b"{}"
    assert unframe(raw) == raw
