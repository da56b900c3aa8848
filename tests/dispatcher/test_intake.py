"""The FastStream subscribers as the leader uses them, on a real server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import Redis

from bus.broker import make_broker
from bus.messages import Command, Heartbeat
from dispatcher.decoding import Batch, Topic
from dispatcher.intake import Intake
from tests.support.waiting import eventually

GROUP = "dispatchers"
BEAT = '{"agent_id":"a","session":"s","seq":%d}'


class Sink:
    """Keeps what the intake delivers; fails while `broken`, and on the heartbeats of `poison`."""

    def __init__(self, *poison: int) -> None:
        self.batches: list[Batch[Any]] = []
        self.broken = False
        self.poison = poison

    async def __call__(self, batch: Batch[Any]) -> None:
        if self.broken:
            raise RuntimeError("broken on purpose")
        if any(isinstance(message, Heartbeat) and message.seq in self.poison for message in batch.messages):
            raise RecursionError("too deep")
        self.batches.append(batch)

    @property
    def seqs(self) -> list[int]:
        return [message.seq for batch in self.batches for message in batch.messages if isinstance(message, Heartbeat)]


@asynccontextmanager
async def listening(
    url: str, redis: Redis, stream: str, sink: Sink, consumer: str = "me", rest_s: float = 0.0
) -> AsyncIterator[Intake]:
    broker = make_broker(url)
    beats = Topic("beats", stream, Heartbeat, max_records=50, rest_s=rest_s)
    topics = (beats, Topic("commands", f"{stream}:commands", Command))
    intake = Intake(broker, redis, topics, group=GROUP, consumer=consumer, sink=sink)
    await intake.start()
    running = asyncio.create_task(intake.run())
    try:
        yield intake
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await intake.stop()
        await broker.stop()


async def write(redis: Redis, stream: str, *seqs: int) -> None:
    for seq in seqs:
        await redis.xadd(stream, {"__data__": BEAT % seq})


async def test_the_backlog_from_before_the_first_start_is_delivered(redis: Redis, redis_url: str, pool: str) -> None:
    await write(redis, pool, *range(120))
    sink = Sink()
    async with listening(redis_url, redis, pool, sink):
        await eventually(lambda: len(sink.seqs) == 120)
    assert sink.seqs == list(range(120))
    assert max(len(batch.ids) for batch in sink.batches) == 50


async def test_what_comes_while_a_topic_rests_is_read_together(redis: Redis, redis_url: str, pool: str) -> None:
    sink = Sink()
    async with listening(redis_url, redis, pool, sink, rest_s=1.0):
        await write(redis, pool, 0)
        await eventually(lambda: sink.seqs == [0])
        await write(redis, pool, *range(1, 11))
        await eventually(lambda: len(sink.seqs) == 11)
    assert [len(batch.ids) for batch in sink.batches] == [1, 10]


async def test_a_topic_with_a_backlog_does_not_rest(redis: Redis, redis_url: str, pool: str) -> None:
    await write(redis, pool, *range(120))
    sink = Sink()
    async with listening(redis_url, redis, pool, sink, rest_s=3600.0):
        await eventually(lambda: len(sink.seqs) == 120)


async def test_a_stream_is_read_only_once_it_is_asked_for(redis: Redis, redis_url: str, pool: str) -> None:
    sink = Sink()
    broker = make_broker(redis_url)
    topics = (Topic("beats", pool, Heartbeat), Topic("more", f"{pool}:more", Heartbeat))
    intake = Intake(broker, redis, topics, group=GROUP, consumer="me", sink=sink)
    await write(redis, f"{pool}:more", 2)
    await intake.start([pool])
    await write(redis, pool, 1)
    await eventually(lambda: sink.seqs == [1])
    assert intake.problems() == ["the inbound streams are not read yet"]
    await intake.start()
    await eventually(lambda: sink.seqs == [1, 2])
    assert intake.problems() == []
    await intake.stop()
    await broker.stop()


async def test_nothing_is_acknowledged_until_the_ledger_does_it(redis: Redis, redis_url: str, pool: str) -> None:
    sink = Sink()
    async with listening(redis_url, redis, pool, sink):
        await write(redis, pool, 1)
        await eventually(lambda: sink.seqs == [1])
    assert (await redis.xpending(pool, GROUP))["pending"] == 1


async def test_pending_entries_of_whatever_consumer_are_delivered_again_at_the_start(
    redis: Redis, redis_url: str, pool: str
) -> None:
    await write(redis, pool, 1, 2, 3)
    await redis.xgroup_create(pool, GROUP, id="0")
    await redis.xreadgroup(GROUP, "somebody else", {pool: ">"}, count=2)
    await redis.xreadgroup(GROUP, "me", {pool: ">"}, count=1)
    sink = Sink()
    async with listening(redis_url, redis, pool, sink):
        assert sorted(sink.seqs) == [1, 2, 3], "before anything else is read"


async def test_entries_that_another_fetched_meanwhile_are_claimed_once_they_are_stranded(
    redis: Redis, redis_url: str, pool: str
) -> None:
    sink = Sink()
    async with listening(redis_url, redis, pool, sink) as intake:
        await write(redis, pool, 1)
        await eventually(lambda: sink.seqs == [1])
        # As a former leader whose blocked read took the entry after it had lost the lead.
        stranger: Any = redis.xreadgroup(GROUP, "former", {f"{pool}:commands": ">"}, count=1, block=5000)
        taken: asyncio.Task[Any] = asyncio.create_task(stranger)
        command = '{"type":"watch","task_ids":["default.x"],"reply_to":"c"}'

        async def stolen() -> bool:
            await redis.xadd(f"{pool}:commands", {"__data__": command})
            await asyncio.wait([taken], timeout=0.05)
            return taken.done()

        await eventually(stolen)
        stolen_id = (await taken)[0][1][0][0].decode()
        await eventually(lambda: any(stolen_id in batch.ids for batch in sink.batches), timeout=15)
        assert sink.seqs == [1], "what is in hand is not delivered twice"
        intake.done(pool, sink.batches[0].ids)


async def test_a_lost_group_is_made_again_and_what_was_written_since_is_read(
    redis: Redis, redis_url: str, pool: str
) -> None:
    sink = Sink()
    async with listening(redis_url, redis, pool, sink) as intake:
        await write(redis, pool, 1)
        await eventually(lambda: sink.seqs == [1])
        await redis.delete(pool)
        await eventually(intake.problems)
        await write(redis, pool, 2)
        await eventually(lambda: sink.seqs == [1, 2])
        await eventually(lambda: not intake.problems())


async def test_a_batch_that_the_sink_refuses_is_reported_and_tried_again(
    redis: Redis, redis_url: str, pool: str
) -> None:
    sink = Sink()
    sink.broken = True
    async with listening(redis_url, redis, pool, sink) as intake:
        await write(redis, pool, 1)
        problems = await eventually(intake.problems)
        assert "broken on purpose" in problems[0]
        sink.broken = False
        await eventually(lambda: sink.seqs == [1], timeout=30)
        assert intake.problems() == []


async def test_an_entry_that_cannot_be_taken_does_not_hold_those_that_were_read_with_it(
    redis: Redis, redis_url: str, pool: str
) -> None:
    await write(redis, pool, *range(20))
    sink = Sink(7, 11)
    async with listening(redis_url, redis, pool, sink) as intake:
        await eventually(lambda: sum(len(batch.entry_ids) for batch in sink.batches) == 20)
        assert intake.problems() == []
    assert sink.seqs == [n for n in range(20) if n not in (7, 11)]
    rejected = [bad for batch in sink.batches for bad in batch.unreadable]
    assert [(bad.raw.decode(), bad.poison) for bad in rejected] == [(BEAT % 7, True), (BEAT % 11, True)]
    assert "RecursionError('too deep')" in rejected[0].reason


async def test_it_stops_and_starts_again_and_leaves_its_unfinished_entries_to_the_next(
    redis: Redis, redis_url: str, pool: str
) -> None:
    first, second = Sink(), Sink()
    async with listening(redis_url, redis, pool, first, "one"):
        await write(redis, pool, 1)
        await eventually(lambda: first.seqs == [1])
    async with listening(redis_url, redis, pool, second, "two") as intake:
        await eventually(lambda: second.seqs == [1])
        await intake.stop()
        assert intake.problems()
        await write(redis, pool, 2)
        await intake.start()
        await eventually(lambda: second.seqs == [1, 1, 2])
