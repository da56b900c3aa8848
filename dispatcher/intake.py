"""The leader's ears: one FastStream batch subscriber per inbound topic, started and stopped with the lead.

Owns the consumer groups and every entry from its delivery until its effect is stored. What FastStream leaves to its
users is done here:

- *Groups* are created at 0 before a subscriber starts: FastStream would create them at ``$``, and the backlog from
  before the first start would never be delivered.
- *Healing.* A subscriber whose group vanished (DEL, FLUSHALL, a restart without persistence) stops for good. `run`
  looks after them four times a second, makes the group again and starts them anew; `problems` reports it until then.
- *Pending entries.* FastStream never reads them again. `start` claims all of them before the first subscriber starts,
  whoever fetched them; `run` goes on claiming those that are in nobody's hands: the reply of a read was lost, or a
  leader that is no more had a read under way. An entry that is delivered twice by this is harmless: its second effect
  is refused by the task's state, as any late message is.
- *Acknowledging* happens in the ledger's commit, in the same step as the effect; `done` only tells that it has.

Nothing is read unless this dispatcher leads: an entry fetched by another would wait for its claim.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextlib import suppress
from typing import Any, Final, Self

from faststream import AckPolicy
from faststream.redis import RedisBroker, StreamSub
from faststream.redis.message import BatchStreamMessage
from redis.exceptions import ResponseError

from bus.connection import BLOCK_MS, CONNECTION_ERRORS, Redis
from dispatcher.decoding import Batch, Topic, decode

LOG = logging.getLogger("callboard.dispatcher")

Sink = Callable[[Batch[Any]], Awaitable[None]]

HEAL_EVERY_S: Final = 0.25
CLAIM_EVERY_S: Final = 2.0
CLAIM_IDLE_MS: Final = 1_000
"""How long an entry must have been pending before its delivery counts as lost; younger ones may be on the wire."""
CLAIM_PAGE: Final = 500
TURNS: Final = 3
"""Turns of the event loop before the next read is asked for: in them what was read is decided, and its commit sent."""


class _Stream(StreamSub):
    """A stream as FastStream reads it, which makes a deep copy of it several times for each read: see `add_prefix`."""

    def add_prefix(self, prefix: str) -> Self:
        """Return the same stream with `prefix` before its name; without one, itself."""
        return super().add_prefix(prefix) if prefix else self


class _Ear:
    """The subscriber of one topic, and the entries that were delivered and are not done."""

    def __init__(self, broker: RedisBroker, topic: Topic[Any], group: str, consumer: str, sink: Sink) -> None:
        self.topic = topic
        self.in_hand: set[str] = set()
        self.open = False
        """It is to be read."""
        self.problem: str | None = None
        self._sink = sink
        self.subscriber = broker.subscriber(
            stream=_Stream(
                topic.stream,
                group=group,
                consumer=consumer,
                batch=True,
                max_records=topic.max_records,
                polling_interval=BLOCK_MS,
            ),
            ack_policy=AckPolicy.MANUAL,
            no_reply=True,
            title=topic.name,
            description=(topic.documented or topic.model).__doc__,
        )
        self.subscriber(self._handler())
        self.subscriber.consume_one = self._consume_one  # type: ignore[assignment, method-assign]

    async def _consume_one(self, raw: BatchStreamMessage) -> None:
        """Take what FastStream has read, past what it does around a handler: scopes, middlewares, injection, records.

        None of these is used here, and they are a third of a millisecond for each read: a quarter of what a single task
        costs. Reading, its retries and its end stay FastStream's, as does the document that is made of the handlers.
        """
        if self.subscriber.running:
            await self.handle(decode(self.topic, raw["message_ids"], raw["data"]))

    def _handler(self) -> Callable[[Batch[Any]], Awaitable[None]]:
        """Return the handler, annotated with what the topic's messages are: the AsyncAPI document is made from that."""

        async def handle(batch: Batch[Any]) -> None:
            await self.handle(batch)

        handle.__annotations__ = {"batch": self.topic.documented or self.topic.model, "return": None}
        return handle

    async def handle(self, batch: Batch[Any]) -> None:
        """Take a batch, and rest before the next read where that is no hurry."""
        await self.take(batch)
        for _ in range(TURNS):
            await asyncio.sleep(0)
        if self.topic.rest_s and 2 * len(batch.entry_ids) < self.topic.max_records:
            await asyncio.sleep(self.topic.rest_s)

    async def take(self, batch: Batch[Any]) -> None:
        """Give a batch to the sink. Its entries are in hand until `Intake.done`; parked ones until the stop.

        A batch that the sink fails on is given to it entry by entry, so that one cannot hold the others.
        """
        ids = batch.entry_ids
        self.in_hand.update(ids)
        self.problem = None
        try:
            await self._sink(batch)
        except Exception:
            LOG.exception("topic %s: a batch of %d could not be taken, now one by one", self.topic.name, len(ids))
            for single in batch.singles():
                await self._take_one(single)

    async def _take_one(self, batch: Batch[Any]) -> None:
        """Give one entry to the sink; when that fails, give it as one that cannot be understood."""
        try:
            await self._sink(batch)
        except Exception as error:
            LOG.exception("topic %s: entry %s cannot be taken", self.topic.name, ", ".join(batch.entry_ids))
            try:
                await self._sink(batch.poisoned(f"it could not be taken: {error!r}"))
            except Exception as again:
                # Raised, it would stop the reading for a while. The entry stays pending: it is claimed and tried again.
                self.in_hand.difference_update(batch.entry_ids)
                self.problem = f"{self.topic.name}: an entry could not be taken: {again!r}"
                LOG.exception("topic %s: nor can it be rejected, it will be tried again", self.topic.name)


class Intake:
    """All inbound topics of one pool. `start`, then `run` until cancelled, then `stop`; and again."""

    def __init__(
        self,
        broker: RedisBroker,
        redis: Redis,
        topics: tuple[Topic[Any], ...],
        *,
        group: str,
        consumer: str,
        sink: Sink,
    ) -> None:
        self._broker = broker
        self._redis = redis
        self._group = group
        self._consumer = consumer
        self._ears = {topic.stream: _Ear(broker, topic, group, consumer, sink) for topic in topics}

    async def start(self, streams: Collection[str] | None = None) -> None:
        """Create missing groups, deliver what is pending, and start reading: these streams, or all that are not read.

        Returns when the subscribers read; the sink must be taking batches meanwhile. Raises redis-py's errors.
        """
        await self._broker.connect()
        ears = [ear for stream, ear in self._ears.items() if not ear.open and (streams is None or stream in streams)]
        for ear in ears:
            ear.in_hand.clear()
            await self._ensure_group(ear)
        for ear in ears:
            await self._claim(ear, 0)
        for ear in ears:
            await ear.subscriber.start()
            ear.open = True

    async def run(self) -> None:
        """Keep the subscribers alive and claim stranded entries, until cancelled."""
        loop = asyncio.get_running_loop()
        claim_at = loop.time() + CLAIM_EVERY_S
        while True:
            await asyncio.sleep(HEAL_EVERY_S)
            for ear in self._open:
                if not ear.subscriber.running:
                    await self._heal(ear)
            if loop.time() >= claim_at:
                claim_at = loop.time() + CLAIM_EVERY_S
                with suppress(*CONNECTION_ERRORS):  # asked again in a moment; the lease tells when to give up
                    await self._claim_stranded()

    async def stop(self) -> None:
        """Stop reading. What was delivered and is not done stays pending, for whoever leads next."""
        for ear in self._ears.values():
            ear.open = False
            await ear.subscriber.stop()
            ear.in_hand.clear()

    def done(self, stream: str, ids: Iterable[str]) -> None:
        """Note that the effect of these entries is stored and that they are deleted."""
        self._ears[stream].in_hand.difference_update(ids)

    def problems(self) -> list[str]:
        """Return what keeps entries from being read, in words; empty when all is well."""
        if not all(ear.open for ear in self._ears.values()):
            return ["the inbound streams are not read yet"]
        found = [f"{ear.topic.name}: not subscribed" for ear in self._ears.values() if not ear.subscriber.running]
        return found + [ear.problem for ear in self._ears.values() if ear.problem is not None]

    @property
    def _open(self) -> list[_Ear]:
        return [ear for ear in self._ears.values() if ear.open]

    async def _ensure_group(self, ear: _Ear) -> None:
        try:
            await self._redis.xgroup_create(ear.topic.stream, self._group, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    async def _heal(self, ear: _Ear) -> None:
        """Make the group again and start the subscriber anew; a server that is away is met again in a moment."""
        LOG.warning("topic %s: its consumer group was lost, subscribing anew", ear.topic.name)
        with suppress(*CONNECTION_ERRORS):
            await self._ensure_group(ear)
            await ear.subscriber.stop()
            await ear.subscriber.start()

    # --- pending entries

    async def _claim(self, ear: _Ear, min_idle_ms: int) -> None:
        """Deliver every pending entry that is idle for `min_idle_ms` and not in hand, oldest first."""
        cursor: bytes | str = "0-0"
        while True:
            try:
                cursor, entries, *_ = await self._redis.xautoclaim(
                    ear.topic.stream, self._group, self._consumer, min_idle_ms, start_id=cursor, count=CLAIM_PAGE
                )
            except ResponseError as error:
                if str(error).startswith("NOGROUP"):
                    return  # the subscriber notices it too, and is healed
                raise
            fresh = [(entry, fields) for entry, fields in entries if entry.decode() not in ear.in_hand]
            if fresh:
                LOG.info("topic %s: %d pending entries are delivered again", ear.topic.name, len(fresh))
                await ear.take(decode(ear.topic, [entry for entry, _ in fresh], [fields for _, fields in fresh]))
            if cursor in (b"0-0", "0-0"):
                return

    async def _claim_stranded(self) -> None:
        """Claim where more is pending than is in hand. Asking costs one round trip for all topics."""
        ears = self._open
        async with self._redis.pipeline(transaction=False) as pipe:
            for ear in ears:
                pipe.xpending(ear.topic.stream, self._group)
            summaries = await pipe.execute(raise_on_error=False)
        for ear, summary in zip(ears, summaries, strict=True):
            if isinstance(summary, Exception):
                continue  # no group, as above
            if summary["pending"] > len(ear.in_hand):
                await self._claim(ear, CLAIM_IDLE_MS)
