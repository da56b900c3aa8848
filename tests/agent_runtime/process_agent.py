"""An agent for tests that need processes: run as a script it is one, its id and pool from the environment."""

import asyncio
import logging
import os
import sys
import time

from agent_runtime import Agent, TaskContext, capability
from agent_runtime.process import run_process
from agent_runtime.settings import AgentSettings


class Crew(Agent):
    slots = 2

    @capability("echo")
    async def echo(self, task: str) -> str:
        return task

    @capability("block")
    async def block(self, task: float) -> float:
        time.sleep(task)  # noqa: ASYNC251 - an author's mistake, on purpose
        return task

    @capability("thread")
    def thread(self, task: float, ctx: TaskContext) -> float:
        ctx.progress(0.1)
        time.sleep(task)
        return task

    @capability("slow")
    async def slow(self, task: float, ctx: TaskContext) -> float:
        await ctx.progress(0.1)
        await asyncio.sleep(task)
        return task

    @capability("crash")
    async def crash(self, task: int) -> None:
        os._exit(task)

    @capability("starve")
    async def starve(self, task: float) -> None:
        asyncio.get_running_loop().call_soon(_no_memory)
        await asyncio.sleep(task)

    @capability("modules")
    async def modules(self, task: list[str]) -> list[str]:
        return [name for name in task if name in sys.modules]


def _no_memory() -> None:
    raise MemoryError


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    sys.exit(run_process(Crew(), AgentSettings()))
