"""Looking at agents and steering them."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from time import monotonic
from typing import Any, Final, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from bus.agent_requests import CONFIRM_MS, AgentRequest, RequestState
from bus.errors import AgentRequestError, NoLeaderError, UnknownAgentError, first_problem
from bus.ids import new_nonce
from bus.link import Link
from bus.messages import AgentCommand, UpdateAgent
from bus.records import AgentInfo
from bus.requirements import AGENT_ID, Value

M = TypeVar("M", bound=BaseModel)

POLL_S: Final = 0.05
ENDED: Final = frozenset({RequestState.DONE, RequestState.REFUSED, RequestState.OVERDUE})


class AgentOperations:
    """A part of `bus.Client`.

    What is asked of an agent is stored when the call returns, which gives its id back: `wait_agent` follows it. Of one
    agent the latest request counts, updates apart. `by` says who asks; the client's id if nobody is named.
    """

    _link: Link

    async def agents(self, pool: str | None = None) -> list[AgentInfo]:
        """Return every agent that a pool knows."""
        return await self._link.ask(self._link.view(pool).agents())

    async def agent(self, agent_id: str, pool: str | None = None) -> AgentInfo:
        """Return one agent. Raises `UnknownAgentError`."""
        found = await self._link.ask(self._link.view(pool).agent(agent_id))
        if found is None:
            raise UnknownAgentError(agent_id, pool or self._link.pool)
        return found

    async def pause_agent(
        self, agent_id: str, note: str = "", *, for_: float | None = None, by: str = "", pool: str | None = None
    ) -> str:
        """Give an agent nothing new; it keeps what runs, and hands back what it has not begun.

        `for_` seconds later it is resumed; without, when somebody does it. A new session of the agent is paused, too.
        Raises `UnknownAgentError`.
        """
        return await self._ask_of(agent_id, "pause", note, by, pool, lasts=for_)

    async def resume_agent(self, agent_id: str, reason: str = "", *, by: str = "", pool: str | None = None) -> str:
        """Give an agent work again: ends a pause, and a drain or restart that has not ended the process yet.

        Raises `UnknownAgentError`.
        """
        return await self._ask_of(agent_id, "resume", reason, by, pool)

    async def drain_agent(
        self, agent_id: str, reason: str = "", *, deadline: float | None = None, by: str = "", pool: str | None = None
    ) -> str:
        """Ask an agent to finish what it has, take nothing new, and stop.

        Tasks that still run `deadline` seconds later are stopped and given to others, which costs each an attempt, as
        the loss of its agent does. Raises `UnknownAgentError`.
        """
        return await self._ask_of(agent_id, "drain", reason, by, pool, deadline=deadline)

    async def restart_agent(
        self, agent_id: str, reason: str = "", *, deadline: float | None = None, by: str = "", pool: str | None = None
    ) -> str:
        """Ask an agent to finish what it has and start anew, which its supervisor does; done by a new session.

        `deadline` is that of `drain_agent`; without one the agent's own grace counts. Raises `UnknownAgentError`.
        """
        return await self._ask_of(agent_id, "restart", reason, by, pool, deadline=deadline)

    async def update_agent(  # noqa: PLR0913 - each is a thing of its own
        self,
        agent_id: str,
        *,
        attributes: Mapping[str, Value] | None = None,
        remove_attributes: Iterable[str] = (),
        disable: Iterable[str] = (),
        enable: Iterable[str] = (),
        slots: int | None = None,
        reset: bool = False,
        reason: str = "",
        by: str = "",
        pool: str | None = None,
    ) -> str:
        """Change what an agent offers; its next sessions are told the same.

        Attributes are the agent's own. A capability that is disabled gets nothing new, in any version; what runs of it
        goes on. `reset` forgets what was changed before. Raises `UnknownAgentError`, and `AgentRequestError` for what
        could never be.
        """
        changed, removed = dict(attributes or {}), tuple(remove_attributes)
        change = {
            "attributes": changed,
            "without": removed,
            "disable": tuple(disable),
            "enable": tuple(enable),
            "slots": slots,
            "reset": reset,
        }
        if AGENT_ID in changed or AGENT_ID in removed:
            raise AgentRequestError(f"{AGENT_ID} is the agent's own id, which none can set or remove: leave it out")
        request = new_nonce()
        by = by or self._link.client_id
        fields = {"agent_id": agent_id, "request": request, "reason": reason, "by": by, "change": change}
        message = _valid(UpdateAgent, fields)
        await self.agent(agent_id, pool)
        await self._link.command(self._link.names(pool), message)
        return request

    async def wait_agent(
        self, agent_id: str, request: str, *, timeout: float | None = None, pool: str | None = None
    ) -> AgentRequest:
        """Return a request when it is done, refused or overdue, or another one has taken its place; `state` says which.

        A request that is replaced is returned as it was last seen. After `timeout` seconds it is returned as it is
        then. Raises `NoLeaderError` when no leader takes it, and `UnknownAgentError`.
        """

        async def look() -> AgentInfo:
            return await self.agent(agent_id, pool)

        return await follow(look, request, timeout, self._link.names(pool).pool)

    async def _ask_of(
        self,
        agent_id: str,
        kind: Literal["pause", "resume", "drain", "restart"],
        reason: str,
        by: str,
        pool: str | None,
        *,
        lasts: float | None = None,
        deadline: float | None = None,
    ) -> str:
        request = new_nonce()
        by = by or self._link.client_id
        fields = {"agent_id": agent_id, "request": request, "reason": reason, "by": by}
        message = _valid(AgentCommand, {**fields, "type": kind, "lasts": lasts, "deadline": deadline})
        await self.agent(agent_id, pool)
        await self._link.command(self._link.names(pool), message)
        return request


async def follow(
    look: Callable[[], Awaitable[AgentInfo]], request: str, timeout: float | None, pool: str
) -> AgentRequest:
    """Look at an agent again and again until a request of it has come to its end; see `AgentOperations.wait_agent`."""
    began = monotonic()
    seen: AgentRequest | None = None
    while True:
        info = await look()
        found = next((one for one in (info.request, info.update) if one is not None and one.id == request), None)
        waited = monotonic() - began
        if found is None and seen is not None:
            return seen
        seen = found
        late = timeout is not None and waited >= timeout
        if seen is not None and (late or seen.state in ENDED):
            return seen
        if seen is None and (late or waited >= CONFIRM_MS / 1000):
            raise NoLeaderError(pool, waited, stored=True)
        await asyncio.sleep(POLL_S)


def _valid(kind: type[M], fields: dict[str, Any]) -> M:
    """Return the message. Raises `AgentRequestError`."""
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise AgentRequestError(first_problem(error).removeprefix("change.")) from error
