"""The agent that benchmarks use: a no-op with a slot for a hundred tasks."""

from typing import Any

from agent_runtime import Agent, capability


class Noop(Agent):
    """Returns what it was given, at once."""

    slots = 100

    @capability("bench.noop", version="1.0")
    async def noop(self, task: dict[str, Any]) -> dict[str, Any]:
        """Do nothing."""
        return {"n": task["n"]}
