"""The heartbeat's thread: it beats while the loop is stuck, says so, and ends a stuck process that shall restart."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from agent_runtime.exit_codes import ExitCode
from agent_runtime.heartbeat import Heartbeat
from agent_runtime.link import Link
from agent_runtime.observer import SILENT
from bus.ids import Pool, SessionId
from bus.messages import Heartbeat as Beat
from bus.messages import Instruction
from bus.names import PoolNames
from tests.support.waiting import eventually


class Kit:
    def __init__(self, url: str, pool: str) -> None:
        self.names = PoolNames(Pool(pool))
        self.exits: list[int] = []
        self.exited = threading.Event()
        self.held: list[tuple[str, int]] = []
        self.occupied = 0
        self.heart = Heartbeat(
            url,
            self.names,
            "a1",
            SessionId("s1"),
            interval=0.05,
            holding=lambda: list(self.held),
            occupied=lambda: self.occupied,
            cursors=lambda: ("7-1", "0-0"),
            link=Link(url, SILENT),
            observer=SILENT,
            exit_process=self._exit,
        )

    def _exit(self, code: int) -> None:
        self.exits.append(code)
        self.exited.set()


@pytest.fixture
async def kit(redis_url: str, pool: str) -> AsyncIterator[Kit]:
    made = Kit(redis_url, pool)
    yield made
    await made.heart.stop()


async def _beats(redis: Redis, kit: Kit) -> list[Beat]:
    entries: Any = await redis.xrange(kit.names.heartbeats)
    return [Beat.model_validate_json(fields[b"__data__"]) for _, fields in entries]


async def test_beats_tell_what_is_held_and_count_up(redis: Redis, kit: Kit, pool: str) -> None:
    kit.held.append((f"{pool}.t", 2))
    kit.heart.start()

    async def three() -> object:
        return len(await _beats(redis, kit)) >= 3

    await eventually(three)
    beats = await _beats(redis, kit)
    assert [beat.seq for beat in beats[:3]] == [1, 2, 3]
    assert beats[0].holding == ((f"{pool}.t", 2),)
    assert (beats[0].inbox, beats[0].session, beats[0].draining) == ("7-1", "s1", False)
    assert beats[-1].lag < 1


async def test_a_beat_that_fails_for_want_of_memory_is_not_the_last(redis: Redis, kit: Kit) -> None:
    """A task that takes all memory fails by itself; its agent must not fall silent for ever by that."""
    failures = 0

    def holding() -> list[tuple[str, int]]:
        nonlocal failures
        failures += 1
        if failures <= 2:
            raise MemoryError
        return []

    kit.heart._holding = holding
    kit.heart.start()

    async def beats() -> bool:
        return bool(await _beats(redis, kit))

    await eventually(beats)


async def test_a_stuck_loop_is_reported_as_lag_by_beats_that_go_on(redis: Redis, kit: Kit) -> None:
    kit.heart.start()
    await eventually(lambda: kit.heart._asked is None)
    time.sleep(0.6)  # noqa: ASYNC251 - the loop is to be stuck

    async def late() -> object:
        return [beat for beat in await _beats(redis, kit) if beat.lag > 0.3]

    assert await eventually(late)
    await eventually(lambda: kit.heart._lag < 0.3)
    assert kit.exits == []


async def test_a_stuck_process_that_shall_restart_is_ended(redis: Redis, kit: Kit) -> None:
    for session in ("other", "s1"):
        note = Instruction(type="restart", session=session)
        await redis.xadd(kit.names.control("a1"), {"__data__": note.model_dump_json()})
    kit.heart.start()
    await eventually(lambda: kit.heart._asked is None)
    assert kit.exits == []
    assert kit.exited.wait(6)  # blocks the loop
    assert kit.exits[0] == ExitCode.RESTART


async def test_the_lease_is_confirmed_by_beats_that_were_stored(kit: Kit) -> None:
    kit.heart.start()
    before = time.monotonic()
    await eventually(lambda: kit.heart.confirmed_at > before)
    await kit.heart.stop()
    assert kit.heart.confirmed_at <= time.monotonic()


async def test_beats_that_fail_confirm_nothing(pool: str) -> None:
    kit = Kit("redis://127.0.0.1:1/0", pool)
    kit.heart.start()
    confirmed = kit.heart.confirmed_at
    await eventually(lambda: kit.heart._seq >= 3)
    assert kit.heart.confirmed_at == confirmed
    async with asyncio.timeout(30):
        await kit.heart.stop()


async def test_beats_that_nobody_reads_do_not_fill_the_server(
    redis: Redis, kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent_runtime.heartbeat.KEPT_BEATS", 100)
    async with redis.pipeline(transaction=False) as pipe:
        for _ in range(1000):
            pipe.xadd(kit.names.heartbeats, {"__data__": "{}"})
        await pipe.execute()
    kit.heart.start()

    async def trimmed() -> bool:
        return bool(await redis.xlen(kit.names.heartbeats) <= 200)  # whole nodes of a hundred go

    await eventually(trimmed)
    await eventually(lambda: kit.heart._seq >= 2)
    entries: Any = await redis.xrevrange(kit.names.heartbeats, count=1)
    assert Beat.model_validate_json(entries[0][1][b"__data__"]).seq >= 1
