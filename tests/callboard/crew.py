"""The agent that the tests of the command line run."""

import asyncio
import time

from pydantic import BaseModel

from agent_runtime import Agent, TaskContext, capability


class Text(BaseModel):
    text: str


class Words(BaseModel):
    words: int


class Crew(Agent):
    slots = 8

    @capability("text.count", version="1.2", languages=["en", "de"])
    async def count(self, task: Text) -> Words:
        return Words(words=len(task.text.split()))

    @capability("boom")
    async def boom(self, task: str) -> None:
        raise RuntimeError(task)

    @capability("fragile")
    async def fragile(self, task: str) -> str:
        if task != "well":
            raise RuntimeError(task)
        return task

    @capability("slow")
    async def slow(self, task: float, ctx: TaskContext) -> None:
        await ctx.progress(0.5, "half way")
        await asyncio.sleep(task)

    @capability("block")
    async def block(self, task: float) -> None:
        time.sleep(task)  # noqa: ASYNC251 - an author's mistake, on purpose
