"""The agent of chaos runs: it notes each execution's beginning and end before anybody else hears of them.

Its journal's folder is in the environment. A job says what shall go wrong in it: how many of its first attempts raise,
take all memory, or end the whole process, and for how long it holds the event loop.
"""

import asyncio
import os
import resource
import signal
import time
import uuid
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from agent_runtime import Agent, TaskContext, capability
from tests.chaos.journal import Journal

FOLDER: Final = "CHAOS_JOURNAL"
NAME: Final = "CHAOS_AGENT"
MEMORY: Final = 256 << 20
"""Bytes of address space that a task may take which takes all, beyond what its process has then."""
HUNGER_S: Final = 5.0
"""For so long after that there is no more, whoever asks for it: the task's failure is told in that time."""


class Job(BaseModel):
    """What is submitted. `n` is the submitter's own number of it; durations are milliseconds.

    So many attempts raise (`fails`), call `os._exit` (`dies`), are ended by SIGKILL as by the kernel when there is no
    memory (`killed`), or take all memory that the process may have (`grows`), to the last byte for `hungry_ms`.
    """

    n: int
    ms: int = 0
    fails: int = 0
    dies: int = 0
    killed: int = 0
    grows: int = 0
    hungry_ms: int = 0
    blocks: int = 0


class Done(BaseModel):
    """What comes back: the execution that it comes from."""

    n: int
    token: str


class Worker(Agent):
    """Works, fails and dies as it is told."""

    slots = 32

    def __init__(self) -> None:
        self._name = os.environ[NAME]
        self._journal = Journal(Path(os.environ[FOLDER]) / f"agent-{self._name}-{os.getpid()}.jsonl")

    @capability("chaos.work")
    async def work(self, job: Job, ctx: TaskContext) -> Done:
        """Do a job."""
        return await self._do(job, ctx, exclusive=False)

    @capability("chaos.alone", exclusive=True)
    async def alone(self, job: Job, ctx: TaskContext) -> Done:
        """Do a job of which no two attempts may run at once."""
        return await self._do(job, ctx, exclusive=True)

    async def _do(self, job: Job, ctx: TaskContext, *, exclusive: bool) -> Done:
        token = uuid.uuid4().hex
        about = {"token": token, "task": ctx.task_id, "attempt": ctx.attempt, "n": job.n}
        self._journal.write("begin", agent=self._name, pid=os.getpid(), exclusive=exclusive, **about)
        try:
            if job.blocks:
                time.sleep(job.blocks / 1000)  # noqa: ASYNC251 - an author's mistake, on purpose
            await asyncio.sleep(job.ms / 1000)
        except asyncio.CancelledError:
            self._journal.write("cancelled", **about)
            raise
        if ctx.attempt <= job.dies:
            self._journal.write("dies", **about)
            os._exit(1)
        if ctx.attempt <= job.killed:
            self._journal.write("killed", **about)
            os.kill(os.getpid(), signal.SIGKILL)
        if ctx.attempt <= job.grows:
            self._journal.write("grows", **about)
            _limit_memory()
            asyncio.get_running_loop().call_later(HUNGER_S + job.hungry_ms / 1000, _lift_limit)
            _take_all_memory(job.hungry_ms / 1000)
        if ctx.attempt <= job.fails:
            self._journal.write("fails", **about)
            raise RuntimeError(f"attempt {ctx.attempt} of {job.n}")
        self._journal.write("end", **about)
        return Done(n=job.n, token=token)


def _limit_memory() -> None:
    """Let this process have `MEMORY` more than it has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    if pages:
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, resource.RLIM_INFINITY))


def _lift_limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def _take_all_memory(hungry_s: float) -> None:
    """Take memory until there is none, to the last small piece; hold it for so long, and raise MemoryError."""
    until = time.monotonic() + hungry_s
    taken: tuple[Any, ...] = ()  # a chain: a list would have to grow, in one large piece
    size = 1 << 20
    while size > 1 or time.monotonic() < until:
        try:
            taken = (taken, bytearray(size))
        except MemoryError:
            size = max(1, size // 2)
    raise MemoryError
