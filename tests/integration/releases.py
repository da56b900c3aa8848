"""A pool in which several releases are at work: `tests.support.other_version` makes processes of the next ones.

A release reads a version of the messages before any writes it. So there are three: this one, the next, which reads
version 2 and writes 1, and the one after it, which writes 2. What another release writes has a field more than this one
knows.
"""

import asyncio
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel
from pydantic_core import from_json, to_json
from redis.asyncio import Redis

from bus import TaskPriority
from bus.names import DATA_FIELD, PoolNames
from dispatcher.audit.auditor import Auditor
from dispatcher.audit.streams import Patience
from dispatcher.leadership import leads
from tests.integration import echo_agent
from tests.support.other_version import READS, WRITES
from tests.support.processes import Process, environment
from tests.support.waiting import eventually

Release = tuple[int, int]
"""The version that it writes, and the highest that it reads."""
THIS: Final[Release] = (1, 1)
NEXT: Final[Release] = (1, 2)
AFTER: Final[Release] = (2, 2)


@dataclass
class Site:
    """A pool, and processes of any release in it."""

    redis: Redis
    url: str
    names: PoolNames
    folder: Path
    processes: list[Process] = field(default_factory=list)

    def dispatcher(self, release: Release, name: str) -> Process:
        """Start a dispatcher."""
        options = ("--pool", self.names.pool, "--id", name, "--metrics-port", "0")
        return self._start(release, name, "callboard", "dispatcher", *options)

    def agent(self, release: Release, name: str) -> Process:
        """Start an agent that echoes."""
        options = {"pool": self.names.pool, "id": name, "made-up": "0", "metrics-host": "127.0.0.1"}
        options |= {"metrics-port": "0", "log-level": "INFO", "heartbeat-interval": "0.5", "lease": "3"}
        options |= {"grace": "1", "hang": "0"}
        target = f"{echo_agent.__file__}:Echo"
        words = [word for option, value in options.items() for word in (f"--{option}", value)]
        return self._start(release, name, "callboard.agent_process", target, *words)

    async def submit(self, release: Release, *arguments: str) -> str:
        """Submit by the command line; return what it prints."""
        command = (*_module(release, "callboard"), "submit", "--pool", self.names.pool, *arguments)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", *command), env=environment(**self._env(release)), stdout=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(40):
            told, _ = await process.communicate()
        assert process.returncode == 0, told
        return told.decode().strip()

    async def write(self, stream: str, message: BaseModel | dict[str, Any]) -> None:
        """Write one message, of whatever version."""
        said = message if isinstance(message, dict) else message.model_dump(mode="json")
        await self.redis.xadd(stream, {DATA_FIELD: to_json({**said, "of_the_future": {"any": ["thing"]}})})

    async def leads(self, name: str) -> bool:
        """Tell whether this dispatcher leads."""
        token: Any = await self.redis.get(self.names.leader)
        return leads(token) == name

    async def assigned(self, agent_id: str, attempt: int) -> bool:
        """Tell whether an agent was given a task with this number of its attempt."""
        entries: Any = await self.redis.xrange(self.names.assignments(agent_id))
        return any(from_json(fields[DATA_FIELD.encode()])["attempt"] == attempt for _, fields in entries)

    async def check(self) -> None:
        """See that nothing was rejected, nothing waits in a stream, and the audit finds nothing."""
        assert await self.redis.xrange(self.names.rejected) == []
        await eventually(self._consumed)
        patience = Patience(consumed_ms=2_000, idle_ms=60_000)
        assert await Auditor(self.redis, self.names, pause_s=0.3, patience=patience).run() == []

    async def _consumed(self) -> bool:
        names = self.names
        streams = (names.results, names.registrations, names.commands, *map(names.submissions, TaskPriority))
        return not any([await self.redis.xlen(stream) for stream in streams])

    def _start(self, release: Release, name: str, module: str, *arguments: str) -> Process:
        command = (*_module(release, module), *arguments)
        process = Process(name, *command, log=self.folder / f"{name}.log", env=self._env(release))
        self.processes.append(process)
        return process.start()

    def _env(self, release: Release) -> dict[str, str]:
        return {"CALLBOARD_REDIS_URL": self.url, WRITES: str(release[0]), READS: str(release[1])}


def _module(release: Release, module: str) -> tuple[str, ...]:
    return ("-m", module) if release == THIS else ("-m", "tests.support.other_version", module)
