"""Steering agents: pause, resume, drain, restart, and change what they offer."""

from contextlib import suppress
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response

from bus.agent_operations import ENDED
from bus.agent_requests import RequestState
from bus.errors import NoLeaderError
from dispatcher.api.admission import AgentIdPath, OperatesAgent, Visit
from dispatcher.api.problems import BUSY, UNKNOWN_AGENT, UNKNOWN_POOL, declared, field_problem
from dispatcher.api.schemas.steering import Because, CapabilitiesPatch, LeaveRequest, PauseRequest, Requested
from dispatcher.api.strict import StrictRoute
from dispatcher.api.waits import unless_stopping, waiting

router: Final = APIRouter(prefix="/agents/{agent_id}", tags=["agents"], route_class=StrictRoute)

Wait = Annotated[
    float, Query(ge=0, le=3600, description="Seconds to wait until it is done; cut to what this API allows, a minute.")
]
_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    202: {"model": Requested, "description": "It is stored, and not done yet: `state` says how far it is."},
    **declared(UNKNOWN_AGENT, UNKNOWN_POOL, BUSY),
}
_DONE: Final = "It has come to its end: `state` says which, done, refused or overdue."


async def _answer(
    visit: Visit, request: Request, agent_id: str, kind: str, asked: str, wait: float
) -> Requested | Response:
    """Follow a request for at most `wait` seconds; 200 when it has come to its end, 202 before.

    Without a leader, too, it is 202: the request is stored. Raises `UnknownAgentError` if the agent is forgotten
    meanwhile.
    """
    told = Requested(agent_id=agent_id, requested=kind, request=asked, state=RequestState.REQUESTED)
    async with waiting(visit.site, request, wait) as seconds:
        if seconds:
            following = visit.site.operations.wait_agent(agent_id, asked, timeout=seconds, pool=visit.names.pool)
            with suppress(NoLeaderError):
                found = await unless_stopping(visit.site, following)
                told = told.model_copy(update={"state": found.state or RequestState.REQUESTED, "details": found})
    if told.state in ENDED:
        return told
    return Response(told.model_dump_json(), 202, media_type="application/json")


@router.post(
    "/pause", summary="Pause an agent", response_description=_DONE, response_model=Requested, responses=_RESPONSES
)
async def pause(
    visit: OperatesAgent, request: Request, agent_id: AgentIdPath, asked: PauseRequest | None = None, wait: Wait = 0.0
) -> Requested | Response:
    """Give an agent nothing new; it keeps what runs, and hands back what it has not begun.

    A new session of the agent is paused, too, until it is resumed or the time is over.
    """
    asked = asked or PauseRequest()
    lasts = asked.lasts
    if asked.until is not None:
        lasts = await _left(visit, asked.until)
    made = await visit.site.operations.pause_agent(
        agent_id, asked.note, for_=lasts, by=visit.caller.by, pool=visit.names.pool
    )
    return await _answer(visit, request, agent_id, "pause", made, wait)


async def _left(visit: Visit, until: int) -> float:
    """Return the seconds until an instant, by the server's clock."""
    seconds, micros = await visit.site.redis.time()
    left = until / 1000 - (int(seconds) + int(micros) / 1_000_000)
    if left <= 0:
        raise field_problem("body.until", "it is over: give an instant to come, in ms since the epoch")
    return min(left, 366 * 86_400.0)


@router.post(
    "/resume", summary="Resume an agent", response_description=_DONE, response_model=Requested, responses=_RESPONSES
)
async def resume(
    visit: OperatesAgent, request: Request, agent_id: AgentIdPath, asked: Because | None = None, wait: Wait = 0.0
) -> Requested | Response:
    """Give an agent work again: ends a pause, and a drain or restart that has not ended the process yet."""
    reason = "" if asked is None else asked.reason
    made = await visit.site.operations.resume_agent(agent_id, reason, by=visit.caller.by, pool=visit.names.pool)
    return await _answer(visit, request, agent_id, "resume", made, wait)


@router.post(
    "/drain", summary="Drain an agent", response_description=_DONE, response_model=Requested, responses=_RESPONSES
)
async def drain(
    visit: OperatesAgent, request: Request, agent_id: AgentIdPath, asked: LeaveRequest | None = None, wait: Wait = 0.0
) -> Requested | Response:
    """Ask an agent to finish what it has, take nothing new, and stop.

    Tasks that still run at the `deadline` are stopped and given to others.
    """
    asked = asked or LeaveRequest()
    made = await visit.site.operations.drain_agent(
        agent_id, asked.reason, deadline=asked.deadline, by=visit.caller.by, pool=visit.names.pool
    )
    return await _answer(visit, request, agent_id, "drain", made, wait)


@router.post(
    "/restart",
    summary="Have an agent restart",
    response_description=_DONE,
    response_model=Requested,
    responses=_RESPONSES,
)
async def restart(
    visit: OperatesAgent, request: Request, agent_id: AgentIdPath, asked: LeaveRequest | None = None, wait: Wait = 0.0
) -> Requested | Response:
    """Ask an agent to finish what it has and start anew, which its supervisor does; done by its new session."""
    asked = asked or LeaveRequest()
    made = await visit.site.operations.restart_agent(
        agent_id, asked.reason, deadline=asked.deadline, by=visit.caller.by, pool=visit.names.pool
    )
    return await _answer(visit, request, agent_id, "restart", made, wait)


@router.patch(
    "/capabilities",
    summary="Change what an agent offers",
    response_description=_DONE,
    response_model=Requested,
    responses=_RESPONSES,
)
async def patch_capabilities(
    visit: OperatesAgent, request: Request, agent_id: AgentIdPath, asked: CapabilitiesPatch, wait: Wait = 0.0
) -> Requested | Response:
    """Change what an agent offers, until it is changed again: its next sessions are told the same."""
    made = await visit.site.operations.update_agent(
        agent_id,
        attributes=asked.attributes,
        remove_attributes=asked.remove_attributes,
        disable=asked.disable,
        enable=asked.enable,
        slots=asked.slots,
        reset=asked.reset,
        reason=asked.reason,
        by=visit.caller.by,
        pool=visit.names.pool,
    )
    return await _answer(visit, request, agent_id, "update", made, wait)
