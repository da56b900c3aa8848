"""From the messages of one read to events for the scheduler: where wire ends and domain begins.

A submission that can be identified but not accepted becomes a FAILED task, so that its submitter is told; whatever
cannot be understood at all goes to `rejected` with its reason and raw bytes. Nothing vanishes.
"""

import json
import re
from collections.abc import Sequence
from typing import Any, Final

from pydantic_core import to_json

from bus.ids import SESSION_PATTERN, TASK_ID_PATTERN, Pool, entry_task_id, task_pool
from bus.messages import (
    MAX_BODY_BYTES,
    VERSION,
    Command,
    Heartbeat,
    Register,
    Registration,
    Report,
    TaskError,
    TaskHeader,
)
from dispatcher.core.events import Beat, Commanded, Event, Refused, Reported, SignedIn, SignedOut, Submitted

_TASK_ID: Final = re.compile(TASK_ID_PATTERN)
_CLIENT: Final = re.compile(SESSION_PATTERN)
_RAW_LIMIT: Final = 64 * 1024


def entry_ms(entry_id: str) -> int:
    """Return the instant of a stream entry, in ms by the server's clock."""
    return int(entry_id[: entry_id.index("-")])


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
    try:
        body: Any = json.loads(raw)
    except ValueError:
        return None
    task_id = body.get("id") if isinstance(body, dict) else None
    if not isinstance(task_id, str) or not _TASK_ID.match(task_id) or not task_id.startswith(f"{pool}."):
        return None
    client = body.get("reply_to")
    reply_to = client if isinstance(client, str) and _CLIENT.match(client) else None
    capability = str(body.get("capability"))[:128]
    kept = to_json({"v": VERSION, "id": task_id, "capability": re.sub(r"[^A-Za-z0-9_./-]", "_", capability) or "_"})
    error = TaskError(type="Refused", message=f"the submission is not valid: {reason}"[:10_000])
    return Refused(task_id, kept, error, reply_to, entry_ms(entry_id))


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
