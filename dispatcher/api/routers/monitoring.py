"""How the system is: for operators, for orchestrators, for Prometheus."""

import asyncio
from importlib.metadata import version
from typing import Final

from fastapi import APIRouter, Request, Response
from redis.exceptions import NoPermissionError

from bus.connection import CONNECTION_ERRORS
from bus.names import PoolNames
from bus.records import LoopBeat
from bus.states import TaskPriority
from dispatcher.api.admission import ReadsAnywhere, site_of
from dispatcher.api.problems import declared
from dispatcher.api.schemas.monitoring import Check, Liveness, LoopState, PoolState, Readiness, SystemStatus
from dispatcher.api.site import Site
from dispatcher.api.strict import StrictRoute

status_router: Final = APIRouter(tags=["monitoring"], route_class=StrictRoute)
probes: Final = APIRouter(tags=["monitoring"])
"""What is served without the prefix, too: there orchestrators and Prometheus look."""

_SERVER_S: Final = 2.0
ALIVE_S: Final = 5.0
"""A loop that was not seen for so long is not alive: the leader publishes each second."""


@status_router.get("/status", summary="What runs, and who leads", responses=declared())
async def status(caller: ReadsAnywhere, request: Request) -> SystemStatus:
    """Return the version, and of every pool who leads it and how much is unread, waiting and running."""
    site = site_of(request)
    pools = [pool for pool in await site.pools() if not caller.pools or pool in caller.pools]
    found = [await _permitted(site, site.link.names(pool)) for pool in pools]
    return SystemStatus(version=version("callboard"), pools=tuple(one for one in found if one is not None))


async def _permitted(site: Site, names: PoolNames) -> PoolState | None:
    """Return how a pool is; None for one of this server that the user of this process may not read."""
    try:
        return await _pool(site, names)
    except NoPermissionError:
        return None


async def _pool(site: Site, names: PoolNames) -> PoolState:
    inbound = {
        "results": names.results,
        "heartbeats": names.heartbeats,
        "registrations": names.registrations,
        "commands": names.commands,
        **{f"tasks:{level.level}": names.submissions(level) for level in TaskPriority},
    }
    async with site.redis.pipeline(transaction=False) as pipe:
        pipe.get(names.leader)
        pipe.pttl(names.leader)
        pipe.get(names.epoch)
        pipe.hgetall(names.loops)
        pipe.time()
        for stream in inbound.values():
            pipe.xlen(stream)
        for stream in inbound.values():
            pipe.xrange(stream, count=1)
        token, left, epoch, loops, (seconds, micros), *rows = await pipe.execute()
    unread, oldest = rows[: len(inbound)], [entries[0][0] for entries in rows[len(inbound) :] if entries]
    now = int(seconds) * 1000 + int(micros) // 1000
    return PoolState(
        pool=names.pool,
        leader=None if token is None else token.decode().split("|")[1],
        epoch=int(epoch or 0),
        lease_left=max(0, left) / 1000 if token is not None else None,
        backlog=dict(zip(inbound, unread, strict=True)),
        lag=max((max(0, now - int(entry.partition(b"-")[0])) / 1000 for entry in oldest), default=0.0),
        loops=tuple(_loop(raw.decode(), beat, now) for raw, beat in sorted(loops.items())) if token else (),
        queue=await site.link.view(names.pool).queue_status(),
    )


def _loop(name: str, beat: bytes, now: int) -> LoopState:
    told = LoopBeat.model_validate_json(beat)
    age = told.age + max(0, now - told.at) / 1000
    return LoopState(name=name, age=age, alive=age < ALIVE_S)


@probes.get("/livez", summary="Whether the process lives", responses=declared())
async def livez() -> Liveness:
    """Answer. Needs no token, and asks nobody."""
    return Liveness()


@probes.get(
    "/readyz",
    summary="Whether the process can serve",
    responses=declared() | {503: {"model": Readiness, "description": "It cannot: the checks say why."}},
)
async def readyz(request: Request, response: Response) -> Readiness:
    """Say whether the process can serve, and what is wrong. Needs no token.

    It is ready without a leader: tasks are taken all the same, and done when there is one. That is told, too.
    """
    site = site_of(request)
    stopping = site.stopping.is_set()
    checks = [Check(name="process", ok=not stopping, needed=True, detail="it is being stopped" if stopping else "")]
    try:
        async with asyncio.timeout(_SERVER_S):
            led = await site.redis.exists(site.link.names(None).leader)
    except CONNECTION_ERRORS:
        checks.append(Check(name="server", ok=False, needed=True, detail="the Redis server does not answer"))
    else:
        checks.append(Check(name="server", ok=True, needed=True))
        detail = "" if led else f"nobody leads pool {site.settings.pool}: `callboard dispatcher`"
        checks.append(Check(name="leader", ok=bool(led), needed=False, detail=detail))
    ready = all(check.ok for check in checks if check.needed)
    response.status_code = 200 if ready else 503
    return Readiness(ready=ready, checks=tuple(checks))


@probes.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **declared()},
)
async def metrics(caller: ReadsAnywhere, request: Request) -> Response:  # noqa: ARG001 - it is checked
    """Return the metrics of this process."""
    body, content_type = request.app.state.metrics()
    return Response(body, media_type=content_type)
