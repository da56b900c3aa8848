"""Who may do what: from the Authorization header to a caller, and from an operation's scopes to yes or no.

Every operation names the scopes of which one is enough; `admin` always is. Without tokens, on loopback, everybody is
admin: the machine is the border then, and `dispatcher.api.boundary` keeps web pages from crossing it.
"""

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import monotonic
from typing import Annotated, Final, cast

from fastapi import Depends, Path, Query, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from bus.ids import AGENT_ID_PATTERN, POOL_PATTERN, TASK_ID_PATTERN
from bus.names import PoolNames
from dispatcher.api.problems import FORBIDDEN, TOO_MANY_REQUESTS, UNAUTHENTICATED, ProblemError
from dispatcher.api.site import Site
from dispatcher.api.tokens import ADMIN, AGENT, OPERATE, READ, SUBMIT

BEARER: Final = HTTPBearer(
    auto_error=False,
    description="A token made by `callboard token create`. Not needed on loopback unless tokens are required there.",
)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends a request."""

    token_id: str | None
    scopes: frozenset[str]
    pools: frozenset[str] = frozenset()
    """Empty: all."""
    name: str = ""
    """What its token is called."""

    @property
    def by(self) -> str:
        """Who it is, as records tell: the name of its token, else the token's id; without one, the API."""
        return self.name or (f"token {self.token_id}" if self.token_id else "api")

    def check(self, *scopes: str) -> None:
        """Raise the problem `forbidden` unless one of `scopes` is allowed."""
        if ADMIN not in self.scopes and self.scopes.isdisjoint(scopes):
            raise ProblemError(FORBIDDEN, f"a token of scope {' or '.join(scopes)} is needed")

    def check_speaks_for(self, agent_id: str) -> None:
        """Raise the problem `forbidden` unless the caller may speak for that agent."""
        self.check(f"{AGENT}{agent_id}")

    def check_is_agent(self) -> None:
        """Raise the problem `forbidden` unless the caller may speak for any agent."""
        if ADMIN not in self.scopes and not any(scope.startswith(AGENT) for scope in self.scopes):
            raise ProblemError(FORBIDDEN, "a token of scope agent:ID is needed, of the agent that speaks")

    def check_pool(self, pool: str) -> None:
        """Raise the problem `forbidden` if the token is for other pools."""
        if self.pools and pool not in self.pools:
            raise ProblemError(FORBIDDEN, "the token is for other pools")


_ANYBODY: Final = Caller(None, frozenset({ADMIN}))


@dataclass(frozen=True, slots=True)
class Visit:
    """One request that may go on: who sends it, to which pool."""

    site: Site
    caller: Caller
    names: PoolNames


async def _caller(site: Site, credentials: HTTPAuthorizationCredentials | None) -> Caller:
    if credentials is None:
        if site.settings.guarded:
            raise ProblemError(UNAUTHENTICATED, "send `Authorization: Bearer …`: `callboard token create` makes one")
        return _ANYBODY
    record = await site.token(credentials.credentials)
    if record is None:
        raise ProblemError(UNAUTHENTICATED, "the token is unknown or revoked: `callboard token create` makes one")
    wait = site.rates.wait(record.id, monotonic())
    if wait:
        detail = f"more than {site.settings.rate:g} a second in the long run: slow down, or send tasks in batches"
        raise ProblemError(TOO_MANY_REQUESTS, detail, headers={"Retry-After": str(math.ceil(wait))})
    return Caller(record.id, frozenset(record.scopes), frozenset(record.pools), record.name)


def site_of(request: Request) -> Site:
    """Return what the process shares."""
    return cast("Site", request.app.state.site)


Credentials = Annotated[HTTPAuthorizationCredentials | None, Security(BEARER)]
TaskIdPath = Annotated[str, Path(pattern=TASK_ID_PATTERN, description="The task's id.", examples=["default.order-17"])]
AgentIdPath = Annotated[str, Path(pattern=AGENT_ID_PATTERN, description="The agent's id.", examples=["worker-1"])]
PoolQuery = Annotated[
    str | None, Query(pattern=POOL_PATTERN, description="The pool that is meant; else the usual one of this API.")
]


def anywhere(*scopes: str) -> Callable[..., Awaitable[Caller]]:
    """Return the dependency of operations that are of no pool."""

    async def admit(request: Request, credentials: Credentials) -> Caller:
        caller = await _caller(site_of(request), credentials)
        caller.check(*scopes)
        return caller

    return admit


def in_pool(*scopes: str) -> Callable[..., Awaitable[Visit]]:
    """Return the dependency of operations in the pool that the query names."""

    async def admit(request: Request, credentials: Credentials, pool: PoolQuery = None) -> Visit:
        site = site_of(request)
        caller = await _caller(site, credentials)
        caller.check(*scopes)
        caller.check_pool(pool or site.settings.pool)
        return Visit(site, caller, await site.names(pool))

    return admit


def of_task(*scopes: str) -> Callable[..., Awaitable[Visit]]:
    """Return the dependency of operations on one task, whose id names its pool."""

    async def admit(request: Request, credentials: Credentials, task_id: TaskIdPath) -> Visit:
        site = site_of(request)
        caller = await _caller(site, credentials)
        caller.check(*scopes)
        names = site.link.names_of(task_id)
        caller.check_pool(names.pool)
        return Visit(site, caller, await site.names(names.pool))

    return admit


def of_agent(scope: str, *, own: bool = False) -> Callable[..., Awaitable[Visit]]:
    """Return the dependency of operations on one agent; with `own` that agent's token will do."""

    async def admit(request: Request, credentials: Credentials, agent_id: AgentIdPath, pool: PoolQuery = None) -> Visit:
        site = site_of(request)
        caller = await _caller(site, credentials)
        caller.check(scope, *((f"{AGENT}{agent_id}",) if own else ()))
        caller.check_pool(pool or site.settings.pool)
        return Visit(site, caller, await site.names(pool))

    return admit


async def _speaks(request: Request, credentials: Credentials, pool: PoolQuery = None) -> Visit:
    site = site_of(request)
    caller = await _caller(site, credentials)
    caller.check_is_agent()
    caller.check_pool(pool or site.settings.pool)
    return Visit(site, caller, await site.names(pool))


async def _speaks_of_task(request: Request, credentials: Credentials, task_id: TaskIdPath) -> Visit:
    site = site_of(request)
    caller = await _caller(site, credentials)
    caller.check_is_agent()
    names = site.link.names_of(task_id)
    caller.check_pool(names.pool)
    return Visit(site, caller, await site.names(names.pool))


Reads = Annotated[Visit, Depends(in_pool(READ))]
Submits = Annotated[Visit, Depends(in_pool(SUBMIT))]
ReadsTask = Annotated[Visit, Depends(of_task(READ))]
AwaitsTask = Annotated[Visit, Depends(of_task(READ, SUBMIT))]
ReadsAgent = Annotated[Visit, Depends(of_agent(READ, own=True))]
OperatesAgent = Annotated[Visit, Depends(of_agent(OPERATE))]
DeletesAgent = Annotated[Visit, Depends(of_agent(OPERATE, own=True))]
SpeaksAsAgent = Annotated[Visit, Depends(of_agent(ADMIN, own=True))]
Speaks = Annotated[Visit, Depends(_speaks)]
"""Some agent speaks: which one is in the body, and is to be checked by `Caller.check_speaks_for`."""
SpeaksOfTask = Annotated[Visit, Depends(_speaks_of_task)]
"""Some agent speaks of a task: of which one it is, the task's record says."""
OperatesAnywhere = Annotated[Caller, Depends(anywhere(OPERATE))]
AwaitsAnywhere = Annotated[Caller, Depends(anywhere(READ, SUBMIT))]
ReadsAnywhere = Annotated[Caller, Depends(anywhere(READ))]
OperatesTask = Annotated[Visit, Depends(of_task(OPERATE))]
Operates = Annotated[Visit, Depends(in_pool(OPERATE))]
