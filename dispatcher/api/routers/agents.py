"""Looking at agents."""

from collections.abc import Iterable
from typing import Annotated, Final

from fastapi import APIRouter, Query
from pydantic import Field, TypeAdapter, ValidationError

from bus.errors import UnknownAgentError
from bus.ids import AGENT_ID_PATTERN, CAPABILITY_PATTERN
from bus.records import AgentInfo, AgentWorkload
from bus.requirements import Condition
from bus.states import AgentHealth, AgentStatus
from dispatcher.api.admission import AgentIdPath, Reads, ReadsAgent, Visit
from dispatcher.api.problems import NO_LEADER, UNKNOWN_AGENT, UNKNOWN_POOL, ProblemError, declared, field_problem
from dispatcher.api.schemas.agents import (
    AgentList,
    AgentLoad,
    AgentState,
    LoadReport,
    WorkloadList,
)
from dispatcher.api.strict import StrictRoute
from dispatcher.core.match import meets

router: Final = APIRouter(prefix="/agents", tags=["agents"], route_class=StrictRoute)

OF_AGENT: Final = (UNKNOWN_AGENT, UNKNOWN_POOL)
_CONDITION: Final = TypeAdapter(Condition)
_AWAY: Final = frozenset({AgentStatus.STOPPED, AgentStatus.ERROR})


@router.get("", summary="List agents", responses=declared(UNKNOWN_POOL))
async def list_agents(
    visit: Reads,
    capability: Annotated[
        str | None, Query(pattern=CAPABILITY_PATTERN, description="Only agents that offer this.")
    ] = None,
    status: Annotated[list[AgentStatus] | None, Query(max_length=5, description="Only agents of these.")] = None,
    health: Annotated[AgentHealth | None, Query(description="Only agents of this health.")] = None,
    attribute: Annotated[
        list[Annotated[str, Field(max_length=300)]] | None,
        Query(
            max_length=16,
            description="Only agents that meet this condition, such as `gpu >= 16` or `region == eu`, by an attribute "
            "of their own or of the capability that is asked for.",
        ),
    ] = None,
    limit: Annotated[int, Query(ge=1, le=500, description="Most agents of a page.")] = 100,
    cursor: Annotated[str | None, Query(pattern=AGENT_ID_PATTERN, description="`next` of the page before.")] = None,
) -> AgentList:
    """List the agents that a pool knows, ordered by their ids, also those that have stopped lately."""
    conditions = _conditions(attribute or ())
    wanted = frozenset(status or ())
    found = [
        info
        for info in sorted(await _agents(visit), key=lambda info: info.agent_id)
        if (cursor is None or info.agent_id > cursor)
        and (not wanted or info.status in wanted)
        and health in (None, info.health)
        and _offers(info, capability, conditions)
    ]
    more = len(found) > limit
    return AgentList(agents=tuple(found[:limit]), next=found[limit - 1].agent_id if more else None)


def _conditions(texts: Iterable[str]) -> list[Condition]:
    try:
        return [_CONDITION.validate_python(text) for text in texts]
    except ValidationError as error:
        message = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise field_problem("query.attribute", message) from None


def _offers(info: AgentInfo, capability: str | None, conditions: list[Condition]) -> bool:
    if capability is None:
        return all(meets(condition, info.attributes) for condition in conditions)
    return any(
        all(meets(condition, {**info.attributes, **spec.attributes}) for condition in conditions)
        for spec in info.capabilities
        if spec.name == capability
    )


async def _agents(visit: Visit) -> list[AgentInfo]:
    return await visit.site.link.view(visit.names.pool).agents()


async def _known(visit: Visit, agent_id: str) -> AgentInfo:
    found = await visit.site.link.view(visit.names.pool).agent(agent_id)
    if found is None:
        raise UnknownAgentError(agent_id, visit.names.pool)
    return found


@router.get("/load", summary="How full agents are", responses=declared(UNKNOWN_POOL, NO_LEADER))
async def load(visit: Reads) -> LoadReport:
    """Return how many slots of each agent are used, the fullest agent first, as the leader said a second ago."""
    loads = [
        AgentLoad(
            agent_id=one.agent_id,
            status=one.status,
            slots=one.slots,
            used=one.taken,
            load=one.taken / max(1, one.slots),
        )
        for one in await _workloads(visit)
    ]
    working = [one for one in loads if one.status not in _AWAY]
    slots, used = sum(one.slots for one in working), sum(one.used for one in working)
    fullest = tuple(sorted(loads, key=lambda one: (-one.load, one.agent_id)))
    return LoadReport(pool=visit.names.pool, slots=slots, used=used, load=used / max(1, slots), agents=fullest)


@router.get("/workload", summary="What agents have to do", responses=declared(UNKNOWN_POOL, NO_LEADER))
async def workload(visit: Reads) -> WorkloadList:
    """Return what each agent has to do, and has done, as the leader said a second ago."""
    found = sorted(await _workloads(visit), key=lambda one: one.agent_id)
    return WorkloadList(pool=visit.names.pool, agents=tuple(found))


async def _workloads(visit: Visit) -> list[AgentWorkload]:
    """Return what the leader has published. Raises the problem `no-leader` if there is nothing and nobody leads."""
    async with visit.site.redis.pipeline(transaction=False) as pipe:
        pipe.hvals(visit.names.load)
        pipe.exists(visit.names.leader)
        rows, led = await pipe.execute()
    if not rows and not led:
        raise ProblemError(NO_LEADER, "nobody says what agents have to do: `callboard dispatcher`")
    return [AgentWorkload.model_validate_json(row) for row in rows]


@router.get("/{agent_id}", summary="One agent", responses=declared(*OF_AGENT))
async def agent(visit: ReadsAgent, agent_id: AgentIdPath) -> AgentInfo:
    """Return all that is known of an agent."""
    return await _known(visit, agent_id)


@router.get("/{agent_id}/status", summary="How an agent is", responses=declared(*OF_AGENT))
async def status(visit: ReadsAgent, agent_id: AgentIdPath) -> AgentState:
    """Return an agent's status and health, and what it has to do."""
    info = await _known(visit, agent_id)
    return AgentState.model_validate(info.model_dump(include=set(AgentState.model_fields)))
