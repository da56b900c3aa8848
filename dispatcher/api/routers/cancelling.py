"""Cancelling tasks, and waiting for what comes of it."""

from collections.abc import Iterable
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request

from bus.cancelling import CancelReport, begun, settled
from bus.ids import task_pool
from bus.records import Run
from dispatcher.api.admission import Caller, OperatesAnywhere, PoolQuery, site_of
from dispatcher.api.problems import BUSY, NO_LEADER, UNKNOWN_POOL, declared
from dispatcher.api.schemas.tasks import CancelledTask, CancelRequest, CancelResponse, CancelStep, EndedTask
from dispatcher.api.site import Site
from dispatcher.api.strict import StrictRoute
from dispatcher.api.waits import allow, unless_stopping, waiting

router: Final = APIRouter(prefix="/tasks", tags=["tasks"], route_class=StrictRoute)

SWEEP_S: Final = 300.0
"""How long a request that speaks of all tasks of a kind may take; the leader tells each second that it is at it."""
Wait = Annotated[
    float,
    Query(ge=0, le=3600, description="Seconds to wait for what comes of it; cut to what this API allows, a minute."),
]


@router.post("/cancel", summary="Cancel tasks", responses=declared(UNKNOWN_POOL, NO_LEADER, BUSY))
async def cancel(
    caller: OperatesAnywhere, request: Request, asked: CancelRequest, wait: Wait = 0.0, pool: PoolQuery = None
) -> CancelResponse:
    """Give tasks up: some by their ids, of any pools, or all of a pool that meet conditions and were submitted before.

    What no agent has is CANCELLED at once; what an agent has is stopped by it. With `wait` the answer comes when all
    have ended, or when the time is over. Without a leader the answer is `no-leader`, and the next one does it.
    """
    site = site_of(request)
    await admit(site, caller, asked.ids, pool)
    if (where := asked.conditions) is not None:
        allow(request, SWEEP_S)
        async with site.question():
            matched = await site.operations.cancel_matching(where, asked.reason, by=caller.by, pool=pool)
        return CancelResponse(matched=matched)
    async with site.question():
        report = await begun(site.link, asked.ids, reason=asked.reason, by=caller.by, grace=asked.grace)
    async with waiting(site, request, wait) as seconds:
        if seconds and report.under_way:
            report = await unless_stopping(site, settled(report, site.handle, seconds))
    return await _response(site, report)


async def admit(site: Site, caller: Caller, task_ids: Iterable[str], pool: str | None = None) -> None:
    """Raise a problem if tasks, or without any `pool`, are of a pool that is none, or that the caller may not use."""
    pools: Iterable[str | None] = {task_pool(task_id) for task_id in task_ids} or (pool,)
    for name in pools:
        caller.check_pool(name or site.settings.pool)
        await site.names(name)


async def _response(site: Site, report: CancelReport) -> CancelResponse:
    steps = [
        *((task_id, CancelStep.FINISHED) for task_id in report.cancelled),
        *((task_id, CancelStep.GIVEN_UP) for task_id in report.given_up),
        *zip(report.under_way, await _steps(site, report.under_way), strict=True),
    ]
    return CancelResponse(
        cancelled=tuple(CancelledTask(task_id=task_id, step=step) for task_id, step in steps),
        over=tuple(EndedTask(task_id=task_id, status=status) for task_id, status in report.over.items()),
        unknown=report.unknown,
    )


async def _steps(site: Site, task_ids: Iterable[str]) -> list[CancelStep]:
    """Return how far the cancels of tasks are that their agents have not stopped yet, as their records tell."""
    async with site.redis.pipeline(transaction=False) as pipe:
        for task_id in task_ids:
            pipe.hget(site.link.names_of(task_id).task(task_id), "run")
        rows: list[Any] = await pipe.execute()
    return [_step(row) for row in rows]


def _step(run: bytes | None) -> CancelStep:
    known = None if run is None else Run.model_validate_json(run).cancellation
    if known is None or known.delivered_at is None:
        return CancelStep.REQUESTED
    return CancelStep.DELIVERED if known.acknowledged_at is None else CancelStep.ACKNOWLEDGED
