"""Conditions on tasks as they stand in a query: those of `callboard tasks list`, and of bodies with `where`."""

from typing import Annotated

from fastapi import Depends, Query
from pydantic import Field

from bus.filters import TaskFilter
from bus.ids import AGENT_ID_PATTERN, CAPABILITY_PATTERN
from bus.states import FailureReason, TaskPriority, TaskStatus

_Instant = Annotated[int | None, Query(ge=0, le=1 << 53)]


def _conditions(  # noqa: PLR0913, PLR0917 - one for each condition
    capability: Annotated[
        str | None, Query(pattern=CAPABILITY_PATTERN, description="Only tasks of this capability.")
    ] = None,
    priority: Annotated[TaskPriority | None, Query(description="Only tasks of this priority.")] = None,
    agent: Annotated[
        str | None, Query(pattern=AGENT_ID_PATTERN, description="Only tasks that this agent has, or had last.")
    ] = None,
    tag: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=64)]] | None,
        Query(max_length=32, description="Only tasks with this tag, or with all of several."),
    ] = None,
    fairness_key: Annotated[
        str | None, Query(min_length=1, max_length=128, description="Only tasks of this fairness key.")
    ] = None,
    reason: Annotated[
        list[FailureReason] | None, Query(max_length=16, description="Only tasks that FAILED for one of these reasons.")
    ] = None,
    error: Annotated[
        str | None,
        Query(min_length=1, max_length=256, description="Only tasks with an error of this type: `ValueError`."),
    ] = None,
    enqueued_after: Annotated[_Instant, Query(description="Only tasks submitted at this or later; ms.")] = None,
    enqueued_before: Annotated[_Instant, Query(description="Only tasks submitted earlier; ms.")] = None,
    ended_after: Annotated[_Instant, Query(description="Only tasks that ended at this or later; ms.")] = None,
    ended_before: Annotated[_Instant, Query(description="Only tasks that ended earlier; ms.")] = None,
) -> TaskFilter:
    return TaskFilter(
        capability=capability,
        priority=priority,
        agent_id=agent,
        tags=tuple(tag or ()),
        fairness_key=fairness_key,
        reason=tuple(dict.fromkeys(reason or ())),
        error=error,
        enqueued_after=enqueued_after,
        enqueued_before=enqueued_before,
        ended_after=ended_after,
        ended_before=ended_before,
    )


Conditions = Annotated[TaskFilter, Depends(_conditions)]
"""All but the status."""


def _with_status(
    conditions: Conditions,
    status: Annotated[list[TaskStatus] | None, Query(max_length=6, description="Only tasks of these statuses.")] = None,
) -> TaskFilter:
    return conditions.model_copy(update={"status": tuple(dict.fromkeys(status or ()))})


Where = Annotated[TaskFilter, Depends(_with_status)]
"""All of them."""
