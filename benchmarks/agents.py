"""The agent that benchmarks use: a no-op with a slot for a hundred tasks."""

import asyncio
from typing import Any

from agent_runtime import Agent, capability
from benchmarks.stopwatch import stopwatch

HELD_S = 3600.0
WATCH = stopwatch()


class Noop(Agent):
    """Returns what it was given, at once, and notes when it began where somebody measures that."""

    slots = 100

    @capability("bench.noop", version="1.0")
    async def noop(self, task: dict[str, Any]) -> dict[str, Any]:
        """Do nothing."""
        if WATCH is not None:
            WATCH.mark(task["n"])
        return {"n": task["n"]}

    @capability("bench.held", version="1.0")
    async def held(self, task: dict[str, Any]) -> None:
        """Do nothing for long."""
        if WATCH is not None:
            WATCH.mark(task["n"])
        await asyncio.sleep(HELD_S)
