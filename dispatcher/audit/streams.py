"""Checks of the inbound streams: whether they are consumed, and what groups, consumers and deliveries are left behind.

Idle times are the server's. Redis 7.0 counts reads that brought nothing as idleness, so the leader's own consumers are
left out by their name.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

from pydantic_core import from_json
from redis.exceptions import ResponseError

from bus.messages import READS
from bus.names import DISPATCHERS_GROUP
from bus.states import TaskPriority
from dispatcher.audit.findings import Finding, Kind
from dispatcher.audit.looking import Sight
from dispatcher.leadership import leads

PENDING_PAGE: Final = 100


@dataclass(frozen=True, slots=True)
class Patience:
    """How long things may take before they count as left behind, in milliseconds."""

    consumed_ms: int = 60_000
    """An entry that a leader has not consumed by then is not consumed."""
    idle_ms: int = 3_600_000
    """A consumer that has not read for so long is gone. Leaders themselves delete those of ten minutes."""


async def of_streams(sight: Sight, patience: Patience) -> AsyncIterator[Finding]:
    """Check every inbound stream."""
    names, redis = sight.names, sight.redis
    streams = [names.results, names.heartbeats, names.registrations, names.commands]
    streams += [names.submissions(level) for level in TaskPriority]
    leader: Any = await redis.get(names.leader)
    waiting = False
    for stream in streams:
        try:
            groups: list[Any] = await redis.xinfo_groups(stream)
        except ResponseError as error:
            if "no such key" in str(error) or "WRONGTYPE" in str(error):
                continue
            raise
        entries = bool(await redis.xlen(stream))
        waiting = waiting or (entries and stream != names.heartbeats)
        if entries and DISPATCHERS_GROUP.encode() not in {group["name"] for group in groups}:
            yield Finding(Kind.NO_GROUP, stream, key=stream)
        if leader is not None:
            async for found in _unread(sight, stream, patience):
                yield found
        for group in groups:
            name = group["name"].decode()
            check = _pending if name == DISPATCHERS_GROUP else _foreign
            async for found in check(sight, stream, name, patience, leader):
                yield found
    if leader is None and (waiting or await redis.zcard(names.pending) or await redis.zcard(names.leases)):
        yield Finding(Kind.NO_LEADER, names.pool)


async def _unread(sight: Sight, stream: str, patience: Patience) -> AsyncIterator[Finding]:
    """Look at the oldest entry: a leader takes whatever comes within a moment, unless it is of a newer version."""
    oldest: Any = await sight.redis.xrange(stream, count=1)
    if not oldest:
        return
    entry = oldest[0][0].decode()
    try:
        if int(entry.partition("-")[0]) > await sight.now() - patience.consumed_ms:
            return
    except ValueError:
        return
    kind = Kind.NEWER_MESSAGE if await _is_newer(sight, stream, entry) else Kind.NOT_CONSUMED
    yield Finding(kind, stream, f"entry {entry}", stream)


async def _is_newer(sight: Sight, stream: str, entry: str) -> bool:
    try:
        said = from_json(await sight.body(stream, entry) or b"")
    except ValueError:
        return False
    version = said.get("v", 1) if isinstance(said, dict) else 1
    return isinstance(version, int) and version > READS


async def _pending(
    sight: Sight, stream: str, group: str, patience: Patience, leader: bytes | None
) -> AsyncIterator[Finding]:
    """Check our own group: deliveries that nobody has in hand, and consumers that are gone."""
    redis = sight.redis
    rows: list[Any] = await redis.xpending_range(stream, group, "-", "+", count=PENDING_PAGE, idle=patience.consumed_ms)
    for row in rows:
        entry = row["message_id"].decode()
        if await sight.body(stream, entry) is None:
            yield Finding(Kind.DELETED_PENDING, stream, f"entry {entry}", stream)
        elif leader is not None and not await _is_newer(sight, stream, entry):
            yield Finding(Kind.NO_OWNER, stream, f"entry {entry}", stream)
    for consumer in await redis.xinfo_consumers(stream, group):
        name = consumer["name"].decode()
        if name != leads(leader) and not consumer["pending"] and consumer["idle"] >= patience.idle_ms:
            yield Finding(Kind.LEFT_CONSUMER, stream, name, stream)


async def _foreign(
    sight: Sight,
    stream: str,
    group: str,
    patience: Patience,
    leader: bytes | None,  # noqa: ARG001 - as `_pending`
) -> AsyncIterator[Finding]:
    """Check a group that somebody else has made: one that is used is his own business."""
    consumers: list[Any] = await sight.redis.xinfo_consumers(stream, group)
    if all(not one["pending"] and one["idle"] >= patience.idle_ms for one in consumers):
        yield Finding(Kind.FOREIGN_GROUP, stream, group, stream)
