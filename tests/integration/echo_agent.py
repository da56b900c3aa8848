"""An agent that gives back what it is given."""

from typing import Any

from agent_runtime import Agent, capability


class Echo(Agent):
    """Echoes."""

    @capability("t.echo")
    async def echo(self, payload: Any) -> Any:
        """Return the payload."""
        return payload
