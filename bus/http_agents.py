"""Looking at agents and steering them over HTTP: a part of `bus.HttpClient`."""

from collections.abc import Iterable, Mapping
from typing import Any

from bus.agent_operations import follow
from bus.agent_requests import AgentRequest
from bus.http_link import About, HttpLink
from bus.ids import check_agent_id
from bus.records import AgentInfo
from bus.requirements import Value

PAGE = 500


class HttpAgents:
    """A part of `bus.HttpClient`: every method does what that of `bus.Client` does, and raises what it raises."""

    _link: HttpLink

    async def agents(self, pool: str | None = None) -> list[AgentInfo]:
        """Return every agent that a pool knows."""
        found: list[AgentInfo] = []
        cursor: str | None = None
        while True:
            told = await self._link.ask("GET", "/agents", limit=PAGE, cursor=cursor, pool=pool or self._link.pool)
            found += [AgentInfo.model_validate(one) for one in told["agents"]]
            cursor = told["next"]
            if cursor is None:
                return found

    async def agent(self, agent_id: str, pool: str | None = None) -> AgentInfo:
        """Return one agent. Raises `UnknownAgentError`."""
        path, about = f"/agents/{check_agent_id(agent_id)}", self._about(agent_id, pool)
        return AgentInfo.model_validate(await self._link.ask("GET", path, about=about, pool=about.pool))

    async def pause_agent(
        self, agent_id: str, note: str = "", *, for_: float | None = None, pool: str | None = None
    ) -> str:
        """Give an agent nothing new; see `Client.pause_agent`."""
        return await self._ask_of(agent_id, "pause", {"note": note, "lasts": for_}, pool)

    async def resume_agent(self, agent_id: str, reason: str = "", *, pool: str | None = None) -> str:
        """Give an agent work again; see `Client.resume_agent`."""
        return await self._ask_of(agent_id, "resume", {"reason": reason}, pool)

    async def drain_agent(
        self, agent_id: str, reason: str = "", *, deadline: float | None = None, pool: str | None = None
    ) -> str:
        """Ask an agent to finish and stop; see `Client.drain_agent`."""
        return await self._ask_of(agent_id, "drain", {"reason": reason, "deadline": deadline}, pool)

    async def restart_agent(
        self, agent_id: str, reason: str = "", *, deadline: float | None = None, pool: str | None = None
    ) -> str:
        """Ask an agent to finish and start anew; see `Client.restart_agent`."""
        return await self._ask_of(agent_id, "restart", {"reason": reason, "deadline": deadline}, pool)

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
        pool: str | None = None,
    ) -> str:
        """Change what an agent offers; see `Client.update_agent`."""
        change = {
            "attributes": dict(attributes or {}),
            "remove_attributes": list(remove_attributes),
            "disable": list(disable),
            "enable": list(enable),
            "slots": slots,
            "reset": reset,
            "reason": reason,
        }
        return await self._ask_of(agent_id, "capabilities", change, pool, method="PATCH")

    async def wait_agent(
        self, agent_id: str, request: str, *, timeout: float | None = None, pool: str | None = None
    ) -> AgentRequest:
        """Return a request when it has come to its end; see `Client.wait_agent`."""

        async def look() -> AgentInfo:
            return await self.agent(agent_id, pool)

        return await follow(look, request, timeout, pool or self._link.pool)

    async def _ask_of(
        self, agent_id: str, verb: str, body: dict[str, Any], pool: str | None, *, method: str = "POST"
    ) -> str:
        path, about = f"/agents/{check_agent_id(agent_id)}/{verb}", self._about(agent_id, pool)
        told = await self._link.ask(method, path, about=about, body=body, pool=about.pool)
        return str(told["request"])

    def _about(self, agent_id: str, pool: str | None) -> About:
        return About(agent_id=agent_id, pool=pool or self._link.pool)
