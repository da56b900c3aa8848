"""Looking at agents and steering them."""

from bus.errors import UnknownAgentError
from bus.link import Link
from bus.messages import AgentCommand
from bus.records import AgentInfo


class AgentOperations:
    """A part of `bus.Client`."""

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

    async def drain_agent(self, agent_id: str, reason: str = "", *, pool: str | None = None) -> None:
        """Ask an agent to finish what it has, take nothing new, and stop. Raises `UnknownAgentError`."""
        await self.agent(agent_id, pool)
        await self._link.command(self._link.names(pool), AgentCommand(type="drain", agent_id=agent_id, reason=reason))

    async def restart_agent(self, agent_id: str, reason: str = "", *, pool: str | None = None) -> None:
        """Ask an agent to finish what it has and start anew, which its supervisor does. Raises `UnknownAgentError`."""
        await self.agent(agent_id, pool)
        await self._link.command(self._link.names(pool), AgentCommand(type="restart", agent_id=agent_id, reason=reason))
