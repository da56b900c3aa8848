"""An agent with a capability for each thing that a test of the worker needs."""

import asyncio
from threading import Event as ThreadEvent

from pydantic import BaseModel

from agent_runtime import Agent, TaskContext, capability


class Text(BaseModel):
    text: str


class Length(BaseModel):
    length: int


class Stage(Agent):
    """Has a capability for each thing a test needs."""

    slots = 2

    def __init__(self) -> None:
        self.entered: list[str] = []
        self.gate = asyncio.Event()
        self.thread_gate = ThreadEvent()
        self.happened: list[str] = []

    async def on_start(self) -> None:
        self.happened.append("start")

    async def on_stop(self) -> None:
        self.happened.append("stop")
        self.thread_gate.set()

    @capability("echo", version="1.2", languages=["en"])
    async def echo(self, task: Text) -> Length:
        return Length(length=len(task.text))

    @capability("wait")
    async def wait(self, task: Text, ctx: TaskContext) -> str:
        self.entered.append(task.text)
        await ctx.progress(0.5, "half way")
        await self.gate.wait()
        return task.text

    @capability("clean")
    async def clean(self, task: Text) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await self.gate.wait()

    @capability("alone", exclusive=True)
    async def alone(self, task: Text) -> str:
        self.entered.append(task.text)
        return task.text

    @capability("versions", version="1.0", languages=["de"])
    async def one(self, task: None) -> str:
        return "one"

    @capability("versions", version="2.0", languages=["en"])
    async def two(self, task: None) -> str:
        return "two"

    @capability("thread")
    def thread(self, task: Text, ctx: TaskContext) -> bool:
        self.entered.append(task.text)
        self.thread_gate.wait(10)
        return ctx.cancelled
