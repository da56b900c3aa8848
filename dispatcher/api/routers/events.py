"""Following what happens, as server-sent events."""

from collections.abc import AsyncGenerator, Callable
from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Query
from pydantic import Field

from bus.ids import AGENT_ID_PATTERN, CAPABILITY_PATTERN, TASK_ID_PATTERN
from bus.states import AgentStatus, TaskStatus
from dispatcher.api.admission import AwaitsTask, Reads, TaskIdPath, Visit
from dispatcher.api.feed import Event, EventId
from dispatcher.api.following import follow
from dispatcher.api.looking import find_task
from dispatcher.api.problems import BUSY, UNKNOWN_POOL, UNKNOWN_TASK, UNREADABLE_TASK, declared, field_problem
from dispatcher.api.streams import EventStream, message
from dispatcher.api.strict import StrictRoute

router: Final = APIRouter(route_class=StrictRoute)

_EXAMPLE: Final = (
    "event: task\n"
    "id: 1795560710652-0/0\n"
    'data: {"at":1795560710652,"epoch":1795560600000,"task_id":"default.order-17","status":"RUNNING","attempt":1}\n\n'
)
_STREAM: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "Events until the reader leaves, or the process stops.",
        "content": {"text/event-stream": {"schema": {"type": "string"}, "example": _EXAMPLE}},
    }
}
LastId = Annotated[
    str | None, Header(max_length=64, description="Go on behind this event; a browser sends it by itself.")
]
_ENDED: Final = frozenset(status.value for status in TaskStatus if status.terminal)
_STATUSES: Final = frozenset(TaskStatus) | frozenset(AgentStatus)


def _position(last_event_id: str | None) -> EventId | None:
    if last_event_id is None:
        return None
    try:
        return EventId.parse(last_event_id)
    except ValueError as error:
        raise field_problem("header.Last-Event-ID", str(error)) from None


@router.get(
    "/events",
    tags=["events"],
    summary="Follow everything",
    response_class=EventStream,
    responses=_STREAM | declared(UNKNOWN_POOL, BUSY),
)
async def events(
    visit: Reads,
    task: Annotated[
        list[Annotated[str, Field(pattern=TASK_ID_PATTERN)]] | None,
        Query(max_length=100, description="Only events of these tasks."),
    ] = None,
    agent: Annotated[
        list[Annotated[str, Field(pattern=AGENT_ID_PATTERN)]] | None,
        Query(max_length=100, description="Only events of these agents, and of tasks in their hands."),
    ] = None,
    capability: Annotated[
        list[Annotated[str, Field(pattern=CAPABILITY_PATTERN)]] | None,
        Query(max_length=100, description="Only events of tasks of these capabilities."),
    ] = None,
    status: Annotated[
        list[TaskStatus | AgentStatus] | None, Query(max_length=11, description="Only events with these statuses.")
    ] = None,
    kind: Annotated[str | None, Query(pattern="^(task|agent)$", description="Only `task` or only `agent`.")] = None,
    last_event_id: LastId = None,
) -> EventStream:
    """Follow every transition of a pool: `event: task` and `event: agent`, each with an id.

    With the id of the last event that was seen in `Last-Event-ID` it goes on behind that; if events in between are
    gone, `event: gap` says so first. A reader that cannot keep up is told `event: dropped`, and the stream ends: begin
    again behind the last id. A comment comes every 15 s if nothing else does. `event: bye` says that the process stops.
    """
    position = _position(last_event_id)
    tasks, agents, statuses = frozenset(task or ()), frozenset(agent or ()), frozenset(map(str, status or ()))
    capabilities = frozenset(capability or ())

    def wanted(event: Event) -> bool:
        return (
            (not tasks or event.task_id in tasks)
            and (not agents or event.agent_id in agents)
            and (not statuses or event.status in statuses)
            and (not capabilities or event.capability in capabilities)
            and kind in (None, event.kind)
        )

    visit.site.check_room()
    await visit.site.feed(visit.names).start()  # a server that is away is answered, not followed
    return EventStream(visit.site, _all(visit, position, wanted))


async def _all(visit: Visit, position: EventId | None, wanted: Callable[[Event], bool]) -> AsyncGenerator[bytes, None]:
    async for piece, _ in follow(visit.site, visit.names, position, wanted):
        yield piece


@router.get(
    "/tasks/{task_id}/events",
    tags=["events"],
    summary="Follow one task",
    response_class=EventStream,
    responses=_STREAM | declared(UNKNOWN_TASK, UNKNOWN_POOL, UNREADABLE_TASK, BUSY),
)
async def task_events(visit: AwaitsTask, task_id: TaskIdPath, last_event_id: LastId = None) -> EventStream:
    """Follow a task until it ends: first `event: state` with its record as it is, then each transition as it comes."""
    position = _position(last_event_id)
    visit.site.check_room()
    record = await find_task(visit, task_id, 0.0)  # an unknown one is answered, not followed
    if record is not None and record.status.terminal:
        return EventStream(visit.site, _ended(record.model_dump_json().encode()))
    return EventStream(visit.site, _of_task(visit, task_id, position))


async def _ended(record: bytes) -> AsyncGenerator[bytes, None]:
    yield message("state", record)


async def _of_task(visit: Visit, task_id: str, position: EventId | None) -> AsyncGenerator[bytes, None]:
    tip = await visit.site.feed(visit.names).start()
    record = await find_task(visit, task_id, 0.0)  # read behind the tip: what comes later is in the feed
    if record is not None:
        yield message("state", record.model_dump_json().encode())
        if record.status.terminal:
            return
    async for piece, last in follow(visit.site, visit.names, position or tip, lambda event: event.task_id == task_id):
        yield piece
        if last is not None and last.status in _ENDED:
            return
