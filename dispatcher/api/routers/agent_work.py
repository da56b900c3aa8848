"""Agents that speak only HTTP: signing in, beating, being given work, taking their leave."""

from collections.abc import Collection
from time import monotonic
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response
from pydantic_core import to_json

from bus.clock import wall_ms
from bus.errors import UnknownAgentError
from bus.ids import SESSION_PATTERN, new_nonce, new_session
from bus.link import ANSWER_S
from bus.messages import (
    MAX_BODY_BYTES,
    AgentCommand,
    HandBack,
    Heartbeat,
    Message,
    Register,
    Registered,
    Report,
    Superseded,
    Unregister,
)
from bus.messages.agents import KEPT_BEATS
from bus.names import DATA_FIELD
from dispatcher.api.admission import AgentIdPath, DeletesAgent, Speaks, SpeaksAsAgent, Visit
from dispatcher.api.arrivals import START, EntryId, entry_id, entry_text
from dispatcher.api.control import Known, to_be_told
from dispatcher.api.mailbox import Mailbox, Standing
from dispatcher.api.offers import overridden
from dispatcher.api.problems import (
    BODY_TOO_LARGE,
    BUSY,
    NO_LEADER,
    SESSION_OVER,
    SUPERSEDED,
    UNKNOWN_AGENT,
    UNKNOWN_POOL,
    ProblemError,
    declared,
    field_problem,
)
from dispatcher.api.schemas.agent_work import (
    ENTRY_PATTERN,
    AgentHeartbeat,
    Assignments,
    HandedAssignment,
    HeartbeatAnswer,
    LeavingAgent,
    RegisterAgent,
    RegisteredAgent,
)
from dispatcher.api.strict import StrictRoute
from dispatcher.api.waits import waiting

router: Final = APIRouter(prefix="/agents", tags=["agents over HTTP"], route_class=StrictRoute)

PATHS: Final = frozenset({"load", "register", "workload"})
"""Nobody could look at agents of these names: `GET /agents/load` is something else."""
LOOK_AGAIN_S: Final = 5.0
"""A poll finds out within this that its session is over."""

OF_SESSION: Final = (UNKNOWN_AGENT, UNKNOWN_POOL, SUPERSEDED, SESSION_OVER)

HANDED: Final = tuple(HandedAssignment.model_fields)

SessionQuery = Annotated[str, Query(pattern=SESSION_PATTERN, description="The session that the registration answered.")]


def _mailbox(visit: Visit, agent_id: str) -> Mailbox:
    return Mailbox(visit.site.redis, visit.names, agent_id)


# --- signing in


@router.post(
    "/register",
    status_code=201,
    summary="Sign in",
    response_description="The leader knows the session.",
    responses=declared(UNKNOWN_POOL, SUPERSEDED, NO_LEADER),
)
async def register(visit: Speaks, asked: RegisterAgent) -> RegisteredAgent:
    """Sign an agent in, and answer when the leader knows it: only then may it be given tasks.

    Without a `session` a new life of the agent begins: an earlier one is over, and what it held goes to others. With
    its present session it says anew what it offers, and its tasks stay. Changes of operators are made to it here.
    Without a leader 503 is answered after three seconds: try again.
    """
    visit.caller.check_speaks_for(asked.agent_id)
    if asked.agent_id in PATHS:
        raise field_problem("body.agent_id", "an operation of this API has that name: choose another")
    mailbox = _mailbox(visit, asked.agent_id)
    try:
        standing: Standing | None = await mailbox.standing()
    except UnknownAgentError:
        standing = None
    message = overridden(_registration(asked), standing)
    tip = await mailbox.control_tip()
    await _publish(visit, visit.names.registrations, message)
    cursor = await _acknowledged(visit, mailbox, message, tip)
    return RegisteredAgent(
        agent_id=message.agent_id,
        pool=visit.names.pool,
        session=message.session,
        revision=message.revision,
        heartbeat_interval=message.heartbeat_interval,
        lease=message.lease,
        slots=message.slots,
        capabilities=tuple(dict.fromkeys(spec.name for spec in message.capabilities)),
        cursor=entry_text(cursor),
    )


def _registration(asked: RegisterAgent) -> Register:
    metadata = {"protocol": "http", **asked.metadata}
    if asked.endpoint is not None:
        metadata["endpoint"] = asked.endpoint
    return Register(
        agent_id=asked.agent_id,
        session=asked.session or new_session(),
        capabilities=asked.capabilities,
        slots=asked.slots,
        resources=asked.resources,
        rate=asked.rate,
        attributes=asked.attributes,
        accepts=asked.accepts,
        metadata=metadata,
        heartbeat_interval=asked.heartbeat_interval,
        lease=asked.lease,
        revision=wall_ms(),  # rises from one registration to the next, whichever process takes them
    )


async def _acknowledged(visit: Visit, mailbox: Mailbox, message: Register, after: EntryId) -> EntryId:
    """Return where the leader has acknowledged a registration; raises the problem `superseded` or `no-leader`."""
    arrivals = visit.site.arrivals(visit.names)
    until = monotonic() + ANSWER_S
    while True:
        _, entries = await _told(mailbox, after)
        for entry, fields in entries:
            after = entry
            for one in mailbox.said(message.session, [(entry, fields)]):
                if isinstance(one, Registered) and one.revision == message.revision:
                    return entry
                if isinstance(one, Superseded):
                    raise ProblemError(SUPERSEDED, "the session is over: register without one, if no other process has")
        left = until - monotonic()
        if left <= 0 or visit.site.stopping.is_set():
            raise ProblemError(NO_LEADER, "no dispatcher has answered: try again; is one running?")
        await arrivals.wait(mailbox.control, after, left)


async def _told(mailbox: Mailbox, after: EntryId) -> tuple[Standing | None, list[tuple[EntryId, object]]]:
    try:
        return await mailbox.told(after)
    except UnknownAgentError:  # the record is written with the acknowledgement
        return None, []


async def _publish(visit: Visit, stream: str, message: Message) -> None:
    body = message.model_dump_json()
    if len(body) > MAX_BODY_BYTES:
        raise ProblemError(BODY_TOO_LARGE, f"at most {MAX_BODY_BYTES:,} bytes: say less of each")
    await visit.site.redis.xadd(stream, {DATA_FIELD: body})


# --- beating


@router.post("/{agent_id}/heartbeat", summary="Beat", responses=declared(*OF_SESSION), response_model_exclude_none=True)
async def heartbeat(visit: SpeaksAsAgent, agent_id: AgentIdPath, said: AgentHeartbeat) -> HeartbeatAnswer:
    """Say that the agent lives and what it holds; the answer is what it is told.

    Beat each `heartbeat_interval`, whatever else is under way: without one within `lease` the agent is lost, and its
    tasks go to others. `session-over` and `unknown-agent`: register again. `superseded`: another process has its id.
    """
    mailbox = _mailbox(visit, agent_id)
    after = None if said.after is None else entry_id(said.after)
    standing, entries = await mailbox.told(after)
    standing.check(said.session)
    holding = tuple((one.task_id, one.attempt) for one in said.holding)
    beat = Heartbeat(
        agent_id=agent_id,
        session=said.session,
        holding=holding,
        lag=said.lag,
        occupied=said.occupied,
        draining=said.draining,
        paused=said.paused,
        obeys=said.heeded,
        updated=standing.updated,
    )
    await mailbox.beaten(said.session, beat.model_dump_json().encode(), holding, KEPT_BEATS)
    known = Known(set(holding) if after is None else None, said.heeded, standing.updated)
    told = to_be_told(mailbox.said(said.session, entries), known)
    leaves = (standing.leaving and said.draining) or standing.leaves(said.heeded)
    over = leaves and await _has_left(visit, mailbox, agent_id, said.session, frozenset(holding))
    cursor = entries[-1][0] if entries else after or START
    return HeartbeatAnswer(control=tuple(told), cursor=entry_text(cursor), over=over)


async def _has_left(
    visit: Visit, mailbox: Mailbox, agent_id: str, session: str, holding: Collection[tuple[str, int]]
) -> bool:
    """Hand back what an agent that is to end was not given any more; sign it out if it holds nothing, and tell so."""
    left = await mailbox.left(session, holding)
    if left:
        back = tuple(HandBack(task_id=task_id, attempt=attempt) for task_id, attempt in left)
        await _publish(visit, visit.names.results, Report(agent_id=agent_id, session=session, returned=back))
    elif not holding:
        leave = Unregister(agent_id=agent_id, session=session, reason="it has finished what it had")
        await _publish(visit, visit.names.registrations, leave)
        return True
    return False


# --- being given work


@router.get(
    "/{agent_id}/assignments",
    summary="Be given work",
    responses=declared(*OF_SESSION, BUSY),
    response_model=Assignments,
)
async def assignments(
    request: Request,
    visit: SpeaksAsAgent,
    agent_id: AgentIdPath,
    session: SessionQuery,
    wait: Annotated[
        float, Query(ge=0, le=3600, description="Seconds to wait for one; cut to what this API allows, a minute.")
    ] = 0.0,
    most: Annotated[int, Query(alias="max", ge=1, le=100, description="Most assignments to hand out.")] = 10,
    after: Annotated[
        str | None, Query(pattern=ENTRY_PATTERN, description="`cursor` of the last answer: only what came later.")
    ] = None,
) -> Response:
    """Hand out what the agent is to do: at once if there is anything, else as soon as there is.

    An assignment is handed out again, by any process, until the agent has said that it begins, how it ended, or by a
    heartbeat that it holds it; or until it gives the `cursor` of the answer that it has got. Poll all the time, also
    when all slots are taken: what comes ahead of a free slot is held until there is one.
    """
    site, mailbox = visit.site, _mailbox(visit, agent_id)
    at = START if after is None else entry_id(after)
    post = await mailbox.post(session, at, most)
    if not post.assignments and wait:
        async with waiting(site, request, wait) as seconds:
            until = monotonic() + seconds
            while not post.assignments and not site.stopping.is_set() and (left := until - monotonic()) > 0:
                await site.arrivals(visit.names).wait(mailbox.assignments, post.seen, min(left, LOOK_AGAIN_S))
                post = await mailbox.post(session, post.cursor, most)
    # As they were written: a model would leave out, or put in, what a payload has or has not.
    given = [{name: one[name] for name in HANDED if name in one} for one in post.assignments]
    body = to_json({"assignments": given, "cursor": entry_text(post.cursor)}, inf_nan_mode="null")
    return Response(body, media_type="application/json")


# --- taking leave


@router.delete(
    "/{agent_id}",
    status_code=202,
    summary="Take an agent's leave",
    responses=declared(UNKNOWN_AGENT, UNKNOWN_POOL, SUPERSEDED, SESSION_OVER),
)
async def delete(
    visit: DeletesAgent,
    agent_id: AgentIdPath,
    session: Annotated[
        str | None, Query(pattern=SESSION_PATTERN, description="Only if this is its session; absent: whichever it is.")
    ] = None,
    *,
    force: Annotated[bool, Query(description="Hand its tasks back at once.")] = False,
) -> LeavingAgent:
    """Have an agent finish what it has, take nothing new and end; once it has, it is forgotten.

    An agent over HTTP beats on meanwhile, and is told `over`. With `force` it is signed out at once, and what it holds
    goes to others; what it still says does not count. A process that goes on all the same signs in again: stop it.
    """
    standing = await _mailbox(visit, agent_id).standing()
    if session is not None and session != standing.session:
        standing.check(session)
    if force:
        leave = Unregister(agent_id=agent_id, session=standing.session, reason="deleted", forget=True)
        await _publish(visit, visit.names.registrations, leave)
        return LeavingAgent(agent_id=agent_id, requested="unregister")
    by = visit.caller.token_id or visit.site.link.client_id
    drain = AgentCommand(type="drain", agent_id=agent_id, request=new_nonce(), by=by, reason="deleted", forget=True)
    await _publish(visit, visit.names.commands, drain)
    return LeavingAgent(agent_id=agent_id, requested="drain")
