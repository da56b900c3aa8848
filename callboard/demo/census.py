"""The census under way: processes are started, tasks submitted, one agent is killed, results are gathered.

Everything here meets only on Redis, as in any installation. The one liberty is the SIGKILL.
"""

import asyncio
import os
import signal
import sys
import sysconfig
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, Final, Self

from bus.client import Client
from bus.clock import wall_ms
from bus.embedded import EmbeddedServer
from bus.errors import TaskOutcomeError
from bus.records import AgentInfo, TaskInDB
from bus.states import AgentStatus, TaskStatus
from callboard.demo.sources import Question, questions
from callboard.ports import free_port
from callboard.processes import Child, ProcessGroup

AGENTS: Final = ("Ada", "Ben", "Cleo")
VICTIM: Final = "ben"
START_S: Final = 30.0
STUCK_S: Final = 60.0
"""How long nothing may end before the census gives up."""
RECORDS_AT_ONCE: Final = 64
_HERE: Final = "127.0.0.1"


@dataclass(slots=True)
class Death:
    """How the victim died, and what became of its tasks."""

    agent_id: str
    pid: int
    at: float
    """Seconds after the start of the census."""
    after: int
    """Tasks that had ended by then."""
    running: int
    """Tasks that ran in it at that moment, by what it had reported."""
    moment: int
    """The same instant by this machine's clock, which is the server's too, in ms since the epoch."""


@dataclass(slots=True)
class Answer:
    """One question with what came of it."""

    question: Question
    record: TaskInDB
    output: Any
    error: str | None


@dataclass(slots=True)
class Census:
    """All that is known when it is over."""

    python: str
    server: str
    seconds: float = 0.0
    asked: int = 0
    answers: list[Answer] = field(default_factory=list)
    agents: list[AgentInfo] = field(default_factory=list)
    death: Death | None = None
    problem: str | None = None


Progress = Callable[[int, int, str], None]
"""Told (ended, all, what happens)."""


class Stage:
    """The processes of the demonstration: a server, a dispatcher, three agents; an async context manager."""

    def __init__(self, folder: Path, redis_port: int) -> None:
        self._server = EmbeddedServer(data_dir=folder / "redis", port=redis_port)
        self._log = folder / "processes.log"
        self._group = ProcessGroup(grace=15.0)
        self._agents: dict[str, Child] = {}
        self._stack = AsyncExitStack()
        self.dispatcher_metrics = ""
        self.bus: Client

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._server)
            await stack.enter_async_context(self._group)
            port = free_port(_HERE)
            self.dispatcher_metrics = f"http://{_HERE}:{port}/metrics"
            await self._start("dispatcher", "dispatcher", "--metrics-port", str(port))
            for name in AGENTS:
                target = f"callboard.demo.agents:{name}"
                self._agents[name.lower()] = await self._start(name.lower(), "agent", target, "--id", name.lower())
            self.bus = await stack.enter_async_context(Client(self.url))
            await self._wait_for_agents()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    @property
    def url(self) -> str:
        """Where the server is."""
        return self._server.url

    @property
    def server(self) -> str:
        """What the server is."""
        return self._server.kind

    async def _start(self, name: str, *arguments: str) -> Child:
        command = [sys.executable, "-P", "-m", "callboard", *arguments]
        return await self._group.start(name, command, env={"CALLBOARD_REDIS_URL": self.url}, log=self._log)

    async def _wait_for_agents(self) -> None:
        try:
            async with asyncio.timeout(START_S):
                while sum(agent.status is not AgentStatus.STOPPED for agent in await self.bus.agents()) < len(AGENTS):  # noqa: ASYNC110 - they tell nobody else
                    await asyncio.sleep(0.05)
        except TimeoutError:
            end = "\n".join(self._log.read_text(errors="replace").splitlines()[-8:])
            raise RuntimeError(f"the agents did not sign in within {START_S:g} s:\n{end}") from None

    async def serve_api(self) -> str:
        """Start the REST API; return its address, where it will answer in a moment."""
        port = free_port(_HERE)
        await self._start("api", "api", "--host", _HERE, "--port", str(port))
        return f"http://{_HERE}:{port}/api/v1"

    async def kill(self, agent_id: str) -> int:
        """Kill an agent's process and its supervisor, so that nobody starts it anew; return the process' id."""
        agent = await self.bus.agent(agent_id)
        pid = int(str(agent.metadata["pid"]))
        self._agents[agent_id].kill()
        with suppress(ProcessLookupError):  # the kernel may have ended it with its supervisor by now
            os.kill(pid, signal.SIGKILL)
        return pid


async def take(stage: Stage, progress: Progress, limit: int | None = None) -> Census:
    """Submit one task per file, kill one agent half way, and wait for every answer."""
    asked = questions(limit)
    census = Census(python=sysconfig.get_python_version(), server=stage.server, asked=len(asked))
    bus = stage.bus
    progress(0, len(asked), "submitting")
    began = perf_counter()
    handles = await bus.submit_many(question.task for question in asked)
    by_id = {handle.id: question for handle, question in zip(handles, asked, strict=True)}
    ended = bus.as_completed(handles)
    outcomes: dict[str, tuple[Any, str | None]] = {}
    while len(outcomes) < len(asked):
        if census.death is None and 2 * len(outcomes) >= len(asked):
            census.death = await _kill_at_work(stage, began, len(outcomes))
            progress(len(outcomes), len(asked), f"{VICTIM} was killed (SIGKILL)")
        try:
            async with asyncio.timeout(STUCK_S):
                handle = await anext(ended)
        except TimeoutError:
            census.problem = f"nothing ended for {STUCK_S:g} s; {await bus.queue_status()}"
            break
        try:
            outcomes[handle.id] = (await handle.result(timeout=STUCK_S), None)
        except TaskOutcomeError as error:
            outcomes[handle.id] = (None, str(error))
        progress(len(outcomes), len(asked), "")
    census.seconds = perf_counter() - began
    records = await _records(bus, list(outcomes))
    census.answers = [Answer(by_id[r.id], r, *outcomes[r.id]) for r in records]  # type: ignore[index]
    census.agents = await bus.agents()
    return census


async def _kill_at_work(stage: Stage, began: float, ended: int) -> Death:
    """Kill the victim in a moment in which tasks run in it, by what it has reported; of few tasks none may be left."""
    async with asyncio.timeout(STUCK_S):
        while True:
            running = [t for t in await stage.bus.list_tasks(TaskStatus.RUNNING) if t.agent_id == VICTIM]
            queue = await stage.bus.queue_status()
            if running or not queue.unread + queue.waiting + queue.active:
                pid = await stage.kill(VICTIM)
                return Death(VICTIM, pid, perf_counter() - began, ended, len(running), wall_ms())


async def _records(bus: Client, task_ids: Sequence[str]) -> list[TaskInDB]:
    found: list[TaskInDB] = []
    for start in range(0, len(task_ids), RECORDS_AT_ONCE):
        part = task_ids[start : start + RECORDS_AT_ONCE]
        found += await asyncio.gather(*(bus.get(task_id) for task_id in part))
    return found
