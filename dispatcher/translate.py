"""From the messages of one read to events for the scheduler: where wire ends and domain begins.

A submission that can be identified but not accepted becomes a FAILED task, so that its submitter is told; whatever
cannot be understood at all goes to `rejected` with its reason and raw bytes. Nothing vanishes.

A message that speaks of many tasks becomes several events, of `ITEMS_PER_PIECE` tasks at most: passes are bounded by
what they have to do, not by how it was put into messages.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

from pydantic_core import from_json, to_json

from bus.ids import SESSION_PATTERN, TASK_ID_PATTERN, Pool, entry_task_id, task_pool
from bus.messages import (
    MAX_BODY_BYTES,
    VERSION,
    CancelTasks,
    Command,
    Explain,
    Heartbeat,
    Plan,
    PurgeDead,
    Register,
    Registration,
    Report,
    Reprioritise,
    RequeueDead,
    TaskError,
    TaskHeader,
    WatchTasks,
)
from dispatcher.core.events import Beat, Commanded, Event, Refused, Reported, SignedIn, SignedOut, Submitted
from dispatcher.decoding import Batch
from dispatcher.inbox import PASS_SIZE, Arrival
from dispatcher.salvage import members

_TASK_ID: Final = re.compile(TASK_ID_PATTERN)
_CLIENT: Final = re.compile(SESSION_PATTERN)
_RAW_LIMIT: Final = 64 * 1024

ITEMS_PER_PIECE: Final = 50
BYTES_PER_ITEM: Final = 8 * 1024
"""A piece weighs as much as it has items, or one for so many bytes, whichever is more."""
HOLDINGS_PER_ITEM: Final = 16
"""A heartbeat is compared with what its agent should hold, which is cheap and cannot be done in pieces."""
ITEMS_PER_SIGNING: Final = 50
"""An agent that comes or goes is matched with each kind of requirement that waits, of which there may be thousands."""


def arrival_of(pool: Pool, batch: Batch[Any], culprits: Mapping[str, str]) -> Arrival:
    """Return what one read brought, ready for the inbox.

    `culprits` are entries on which the scheduler has failed, with the reason: they go to `rejected`.
    """
    topic = batch.topic
    aside: dict[str, list[bytes]] = defaultdict(list)
    for part in batch.set_aside:
        aside[part.entry_id].append(rejection(topic.name, part.entry_id, part.raw, part.reason))
    arrival = Arrival(topic.stream)
    for entry_id, event, body in zip(batch.ids, _events(pool, batch), batch.bodies, strict=True):
        if entry_id in culprits:
            arrival.reject(entry_id, None, [rejection(topic.name, entry_id, body, culprits[entry_id])])
        else:
            arrival.add(entry_id, pieces(event, len(body)), aside.get(entry_id, ()))
    for entry_id in batch.skipped:
        arrival.add(entry_id, ())
    for bad in batch.unreadable:
        said = [rejection(topic.name, bad.entry_id, bad.raw, culprits.get(bad.entry_id, bad.reason))]
        refused = None
        if topic.model is TaskHeader and not bad.poison and bad.entry_id not in culprits:
            refused = refusal(pool, bad.entry_id, bad.raw, bad.reason)
        arrival.reject(bad.entry_id, refused, said)
    return arrival


def _events(pool: Pool, batch: Batch[Any]) -> Sequence[Event | None]:
    topic = batch.topic
    if topic.model is TaskHeader:
        level = topic.name.removeprefix("tasks:")
        return submissions(pool, level, batch.ids, batch.messages, batch.bodies)
    events = events_of(batch.ids, batch.messages)
    return latest_beats(events) if topic.model is Heartbeat else events


def latest_beats(events: Sequence[Event]) -> list[Event | None]:
    """Replace by None each heartbeat that another of the same session follows: a backlog of them is worth its last."""
    last = {(e.message.agent_id, e.message.session): n for n, e in enumerate(events) if isinstance(e, Beat)}
    kept = set(last.values())
    return [event if n in kept else None for n, event in enumerate(events)]


def pieces(event: Event | None, size: int) -> Iterator[tuple[Event | None, int]]:
    """Yield the parts of an event that came in `size` bytes, each with its weight in items."""
    weight = 1 + size // BYTES_PER_ITEM
    if isinstance(event, Reported):
        report = event.message
        items = len(report.updates) + len(report.results) + len(report.returned)
        if items > ITEMS_PER_PIECE:
            for part in _report_parts(report):
                yield Reported(part, event.at), max(ITEMS_PER_PIECE, weight * ITEMS_PER_PIECE // items)
            return
        weight = max(weight, items)
    elif isinstance(event, Commanded) and isinstance(
        event.command, CancelTasks | Reprioritise | RequeueDead | PurgeDead | WatchTasks
    ):
        ids = event.command.task_ids
        if len(ids) > ITEMS_PER_PIECE:
            for some in _chunks(ids):
                yield Commanded(event.command.model_copy(update={"task_ids": some}), event.at), len(some)
            return
        weight = max(weight, len(ids))
    elif isinstance(event, Commanded) and isinstance(event.command, Explain | Plan):
        weight = PASS_SIZE  # it looks at every agent
    elif isinstance(event, SignedIn | SignedOut):
        weight = max(weight, ITEMS_PER_SIGNING)
    elif isinstance(event, Beat):
        weight += len(event.message.holding) // HOLDINGS_PER_ITEM
    yield event, weight


def _report_parts(report: Report) -> Iterator[Report]:
    """Yield the parts of a report, in the order in which it is applied as a whole."""
    empty = report.model_copy(update={"updates": (), "results": (), "returned": ()})
    for name in ("updates", "results", "returned"):
        for part in _chunks(getattr(report, name)):
            yield empty.model_copy(update={name: part})


def _chunks(items: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    for start in range(0, len(items), ITEMS_PER_PIECE):
        yield items[start : start + ITEMS_PER_PIECE]


def entry_ms(entry_id: str) -> int:
    """Return the instant of a stream entry, in ms by the server's clock."""
    return _instant(entry_id[: entry_id.index("-")])


@lru_cache(maxsize=256)
def _instant(ms: str) -> int:
    """Return the same number for entries of one millisecond: a million tasks that wait remember theirs."""
    return int(ms)


def submissions(
    pool: Pool, level: str, ids: Sequence[str], headers: Sequence[TaskHeader], bodies: Sequence[bytes]
) -> list[Event]:
    """Return an event per submission; one that is too large, or belongs to another pool, is refused."""
    prefix = f"{pool}."
    events: list[Event] = []
    for entry_id, header, body in zip(ids, headers, bodies, strict=True):
        task_id = header.id or entry_task_id(pool, level, entry_id)
        at = entry_ms(entry_id)
        if not task_id.startswith(prefix):
            task_id = entry_task_id(pool, level, entry_id)
            problem = f"id {header.id!r} belongs to pool {task_pool(header.id or '.')!r}, and this is {pool!r}"
        elif len(body) > MAX_BODY_BYTES:
            problem = f"the task takes {len(body):,} bytes and the limit is {MAX_BODY_BYTES:,}"
        else:
            events.append(Submitted(task_id, header, body, at))
            continue
        kept = to_json({"v": VERSION, "id": task_id, "capability": header.capability})
        events.append(Refused(task_id, kept, TaskError(type="Refused", message=problem), header.reply_to, at))
    return events


def refusal(pool: Pool, entry_id: str, raw: bytes, reason: str) -> Refused | None:
    """Return the event for a submission that does not fit the model, if it at least names itself."""
    said, _ = members(raw)
    task_id = _text(said.get("id"))
    if task_id is None or not _TASK_ID.match(task_id) or not task_id.startswith(f"{pool}."):
        return None
    client = _text(said.get("reply_to"))
    reply_to = client if client is not None and _CLIENT.match(client) else None
    capability = (_text(said.get("capability")) or "_")[:128]
    kept = to_json({"v": VERSION, "id": task_id, "capability": re.sub(r"[^A-Za-z0-9_./-]", "_", capability) or "_"})
    error = TaskError(type="Refused", message=f"the submission is not valid: {reason}"[:10_000])
    return Refused(task_id, kept, error, reply_to, entry_ms(entry_id))


def _text(raw: bytes | None) -> str | None:
    """Return the string that `raw` is in JSON; None if it is none."""
    try:
        value: object = from_json(raw or b"")
    except ValueError:
        return None
    return value if isinstance(value, str) else None


def rejection(topic: str, entry_id: str, raw: bytes, reason: str) -> bytes:
    """Return the body for the `rejected` stream."""
    return to_json(
        {
            "v": VERSION,
            "topic": topic,
            "entry_id": entry_id,
            "reason": reason[:2000],
            "raw": raw[:_RAW_LIMIT].decode("utf-8", "backslashreplace"),
            "size": len(raw),
        }
    )


def events_of(ids: Sequence[str], messages: Sequence[Any]) -> list[Event]:
    """Return an event per message of the commands, registrations, heartbeats or results topic."""
    return [_event(message, entry_ms(entry_id)) for entry_id, message in zip(ids, messages, strict=True)]


def _event(message: Report | Heartbeat | Registration | Command, at: int) -> Event:
    if isinstance(message, Report):
        return Reported(message, at)
    if isinstance(message, Heartbeat):
        return Beat(message, at)
    if isinstance(message, Registration):
        signed = message.root
        return SignedIn(signed, at) if isinstance(signed, Register) else SignedOut(signed, at)
    return Commanded(message.root, at)
