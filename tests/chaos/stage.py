"""The processes of a chaos run, each behind a proxy of its own, so that each may lose the network by itself."""

import asyncio
import os
import shutil
import signal
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, Final, Self

from bus.connection import CONNECTION_ERRORS, Redis, connect
from bus.embedded import Persistence
from bus.ids import check_pool
from bus.names import PoolNames
from tests.chaos import agent as chaos_agent
from tests.chaos.flight import Flight
from tests.support.disk import NoDiskError, disk, give_back
from tests.support.processes import Process, Server, callboard
from tests.support.proxy import Proxy

POOL: Final = "chaos"
AUDIT_EVERY: Final = "10s"
AGENT_FILE: Final = f"{Path(chaos_agent.__file__)}:Worker"


class Stage:
    """Server, proxies, dispatchers and agents, while the block runs. What ended unbidden is in `unexpected`."""

    def __init__(
        self,
        folder: Path,
        *,
        dispatchers: int = 2,
        agents: int = 4,
        producers: int = 3,
        persistence: Persistence = "always",
        disk_mb: int = 0,
    ) -> None:
        self.folder = folder
        self.journals = folder / "journals"
        self.names = PoolNames(check_pool(POOL))
        self.server = Server(folder / "server", persistence=persistence)
        self.dispatchers = [f"d{n}" for n in range(1, dispatchers + 1)]
        self.agents = [f"a{n}" for n in range(1, agents + 1)]
        self.producers = [f"p{n}" for n in range(1, producers + 1)]
        self.proxies: dict[str, Proxy] = {}
        self.processes: dict[str, Process] = {}
        self.unexpected: list[str] = []
        self.no_disk: str | None = "none was asked for"
        """Why the server has no disk of its own, which may be filled; None if it has one."""
        self._disk_mb = disk_mb
        self._flight = Flight(self.journals)
        self.redis: Redis
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            await self._set()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def _set(self) -> None:
        self.journals.mkdir(parents=True)
        if self._disk_mb:
            try:
                self._stack.enter_context(disk(self.server.data_dir, self._disk_mb))
                self._stack.callback(self._keep_data)
                self.no_disk = None
            except NoDiskError as error:
                self.no_disk = str(error)
        await self._stack.enter_async_context(self.server)
        for name in (*self.dispatchers, *self.agents, *self.producers):
            self.proxies[name] = await self._stack.enter_async_context(Proxy(self.server.url))
        self.redis = await self._stack.enter_async_context(connect(self.server.url, name="chaos"))
        self._stack.callback(self._close)
        for name in (*self.dispatchers, *self.agents):
            self.start(name)
        await asyncio.gather(*(self.processes[name].wait_for("is signed in", 90) for name in self.agents))

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def make(self, name: str) -> Process:
        """Return another process of this name, not started."""
        log = self.folder / f"{name}.log"
        url = self.proxies[name].url
        if name in self.agents:
            env = {chaos_agent.FOLDER: str(self.journals), chaos_agent.NAME: name}
            return callboard("agent", AGENT_FILE, name=name, url=url, pool=POOL, log=log, **env)
        options = ("--events-retention", "2h", "--audit-every", AUDIT_EVERY)
        return callboard("dispatcher", *options, name=name, url=url, pool=POOL, log=log)

    def start(self, name: str) -> None:
        """Start a process anew, whether or not its predecessor has ended."""
        self.processes[name] = self.make(name).start()

    async def leader(self) -> str | None:
        """Return the dispatcher that leads; None if none does, or the server is away."""
        with suppress(*CONNECTION_ERRORS):
            token: Any = await self.redis.get(self.names.leader)
            return None if token is None else str(token.decode().split("|")[1])
        return None

    def check(self) -> None:
        """Note and start anew what has ended though nobody has ended it."""
        for name, process in list(self.processes.items()):
            if not process.running:
                self.unexpected.append(f"{name} has ended by itself: see {process.log}")
                self.start(name)

    def worker_pids(self, name: str) -> list[int]:
        """Return the processes in which an agent's tasks run: the children of its supervisor."""
        return self.processes[name].children

    def at_work(self, name: str) -> bool:
        """Tell whether an agent, or with an empty name any, has work under way now, by what it wrote down."""
        return self._flight.has(name)

    def audits(self) -> list[str]:
        """Return what the audits of all leaders have found, and each error of theirs, by their logs."""
        logs = [self.folder / f"{name}.log" for name in self.dispatchers]
        lines = [line for log in logs if log.exists() for line in log.read_text().splitlines()]
        return [line for line in lines if ": audit: " in line or " error " in line[:24]]

    def heal(self) -> None:
        """End all that is done to networks and stopped processes."""
        for proxy in self.proxies.values():
            proxy.mend()
        for process in self.processes.values():
            for pid in (process.pid, *process.children):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def _keep_data(self) -> None:
        """Copy the server's files from its disk, which is about to go, to the evidence."""
        give_back(self.server.data_dir)
        shutil.copytree(self.server.data_dir, self.folder / "server-kept")

    def _close(self) -> None:
        for process in self.processes.values():
            process.close()
