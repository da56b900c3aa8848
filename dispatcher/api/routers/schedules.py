"""Tasks that are submitted again and again: looking at schedules, making, pausing, triggering, deleting them."""

from typing import Annotated, Final

from fastapi import APIRouter, Path, Query

from bus.errors import ScheduleError
from bus.ids import SCHEDULE_ID_PATTERN
from bus.messages import ScheduleInfo
from bus.schedule_operations import schedule_of
from dispatcher.api.admission import Operates, Reads
from dispatcher.api.problems import (
    BUSY,
    NO_LEADER,
    SCHEDULE_BUSY,
    UNKNOWN_POOL,
    UNKNOWN_SCHEDULE,
    UNREADABLE_SCHEDULE,
    ProblemError,
    declared,
    field_problem,
)
from dispatcher.api.schemas.schedules import (
    DeletedSchedule,
    ScheduleList,
    SchedulePause,
    ScheduleRequest,
    TriggeredSchedule,
)
from dispatcher.api.strict import StrictRoute

router: Final = APIRouter(prefix="/schedules", tags=["schedules"], route_class=StrictRoute)

ScheduleIdPath = Annotated[
    str, Path(pattern=SCHEDULE_ID_PATTERN, description="The schedule's id.", examples=["nightly"])
]
_CHANGES: Final = (UNKNOWN_SCHEDULE, UNKNOWN_POOL, NO_LEADER, BUSY)


@router.get("", summary="List schedules", responses=declared(UNKNOWN_POOL, UNREADABLE_SCHEDULE))
async def list_schedules(
    visit: Reads,
    limit: Annotated[int, Query(ge=1, le=500, description="Most schedules of a page.")] = 100,
    cursor: Annotated[str, Query(max_length=64, description="`next` of the page before.")] = "",
) -> ScheduleList:
    """List the schedules of a pool, ordered by their ids: what they do, and how far they are."""
    try:
        found, last = await visit.site.link.view(visit.names.pool).schedule_page(cursor, limit)
    except ScheduleError as error:
        raise ProblemError(UNREADABLE_SCHEDULE, str(error)) from error
    return ScheduleList(schedules=tuple(found), next=last)


@router.get(
    "/{schedule_id}",
    summary="One schedule",
    responses=declared(UNKNOWN_SCHEDULE, UNKNOWN_POOL, UNREADABLE_SCHEDULE),
)
async def schedule(visit: Reads, schedule_id: ScheduleIdPath) -> ScheduleInfo:
    """Return what a schedule does, and how far it is."""
    try:
        return await visit.site.schedules.get(schedule_id, pool=visit.names.pool)
    except ScheduleError as error:
        raise ProblemError(UNREADABLE_SCHEDULE, str(error)) from error


@router.put("/{schedule_id}", summary="Make or change a schedule", responses=declared(UNKNOWN_POOL, NO_LEADER, BUSY))
async def put(
    visit: Operates,
    schedule_id: ScheduleIdPath,
    asked: ScheduleRequest,
    if_absent: Annotated[bool, Query(description="Leave one that exists as it is, and answer that.")] = False,  # noqa: FBT002 - a query
) -> ScheduleInfo:
    """Make a schedule, or let the one of this id be so from now on; the answer is how it is in force.

    To put the same timing again delays nothing, and keeps counts and a pause: repeating a request is harmless.
    """
    when = asked.model_dump(exclude={"task"}, exclude_unset=True)
    given = asked.task.model_dump(exclude_unset=True)
    try:
        _, spec = schedule_of(schedule_id, given, **when)
        async with visit.site.question():
            return await visit.site.schedules.put_spec(spec, if_absent=if_absent, pool=visit.names.pool)
    except ScheduleError as error:
        raise field_problem("body", str(error)) from None


@router.delete("/{schedule_id}", summary="Delete a schedule", responses=declared(*_CHANGES))
async def delete(visit: Operates, schedule_id: ScheduleIdPath) -> DeletedSchedule:
    """Forget a schedule. Tasks that it has submitted go on."""
    async with visit.site.question():
        await visit.site.schedules.delete(schedule_id, pool=visit.names.pool)
    return DeletedSchedule(schedule_id=schedule_id)


@router.post("/{schedule_id}/pause", summary="Pause a schedule", responses=declared(*_CHANGES))
async def pause(visit: Operates, schedule_id: ScheduleIdPath, asked: SchedulePause | None = None) -> ScheduleInfo:
    """Let a schedule rest until it is resumed."""
    reason = "" if asked is None else asked.reason
    async with visit.site.question():
        return await visit.site.schedules.pause(schedule_id, reason, pool=visit.names.pool)


@router.post("/{schedule_id}/resume", summary="Resume a schedule", responses=declared(*_CHANGES))
async def resume(visit: Operates, schedule_id: ScheduleIdPath) -> ScheduleInfo:
    """Let a schedule go on; what was due meanwhile goes by its `missed`."""
    async with visit.site.question():
        return await visit.site.schedules.resume(schedule_id, pool=visit.names.pool)


@router.post(
    "/{schedule_id}/trigger",
    summary="Submit a schedule's task now",
    responses=declared(*_CHANGES, SCHEDULE_BUSY),
)
async def trigger(visit: Operates, schedule_id: ScheduleIdPath) -> TriggeredSchedule:
    """Submit the task of a schedule now, also of a paused one.

    `schedule-busy` if its `overlap` is to skip and an earlier task has not ended.
    """
    try:
        async with visit.site.question():
            handle = await visit.site.schedules.trigger(schedule_id, pool=visit.names.pool)
    except ScheduleError as error:
        raise ProblemError(SCHEDULE_BUSY, str(error)) from None
    return TriggeredSchedule(schedule_id=schedule_id, task_id=handle.id)
