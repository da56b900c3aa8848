"""Real processes and what may happen to them: killed, stopped for a while and gone on with, started anew.

Each is tied to this process by `bus.lifeline`: none outlives a test, however that ends. Its output goes to a file.
"""

import asyncio
import os
import re
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

import psutil

from bus.embedded import EmbeddedServer, Persistence
from bus.lifeline import TiedProcess, spawn_tied
from tests.support.waiting import eventually

ROOT: Final = Path(__file__).parents[2]
_POLL_S: Final = 0.02


def environment(**more: str) -> dict[str, str]:
    """Return this process' environment without settings of Callboard's, and with `more`; this checkout is imported."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CALLBOARD_")}
    return kept | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"} | more


class Process:
    """A command that runs on, by its name: `callboard dispatcher`, say. `start` again after its end."""

    def __init__(self, name: str, *arguments: str, log: Path, env: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.log = log
        self._arguments = arguments
        self._env = environment(**(env or {}))
        self._tied: TiedProcess | None = None
        self._log_from = 0

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._tied is not None, f"{self.name} was never started"
        return self._tied.process.pid

    @property
    def running(self) -> bool:
        """True from its start to its end; also while it is stopped."""
        return self._tied is not None and self._tied.process.poll() is None

    @property
    def children(self) -> list[int]:
        """The process ids of its children: of `callboard agent`, those in which tasks run."""
        with suppress(psutil.NoSuchProcess):
            return [child.pid for child in psutil.Process(self.pid).children()]
        return []

    def start(self) -> Self:
        """Start it."""
        assert not self.running, f"{self.name} runs already"
        self._log_from = self.log.stat().st_size if self.log.exists() else 0
        command = (sys.executable, "-P", *self._arguments)
        self._tied = spawn_tied(command, log=self.log, env=self._env)
        return self

    async def wait_for(self, pattern: str, timeout: float = 40.0, every: float = _POLL_S) -> re.Match[str]:
        """Return the match of the first line since its start in which `pattern` is found."""

        def found() -> Any:
            if not self.log.exists():
                return None
            with self.log.open("rb") as lines:
                lines.seek(self._log_from)
                return re.search(pattern, lines.read().decode(errors="replace"))

        match: re.Match[str] = await eventually(found, timeout=timeout, every=every)
        return match

    def signal(self, number: int) -> None:
        """Send it a signal; nothing happens if it has ended."""
        if self.running:
            os.kill(self.pid, number)

    async def kill(self) -> None:
        """End it by SIGKILL."""
        self.signal(signal.SIGKILL)
        await self.ended()

    async def stop(self, timeout: float = 30.0) -> int:
        """End it by SIGTERM; return its exit code."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        return await self.ended(timeout)

    async def ended(self, timeout: float = 30.0) -> int:
        """Return its exit code when it has ended."""
        assert self._tied is not None
        process = self._tied.process
        async with asyncio.timeout(timeout):
            while process.poll() is None:  # noqa: ASYNC110 - works in any loop, whatever its child watcher
                await asyncio.sleep(_POLL_S)
        return int(process.returncode)

    def close(self) -> None:
        """Kill what still runs."""
        if self._tied is not None:
            self._tied.end()


def callboard(command: str, *arguments: str, name: str, url: str, pool: str, log: Path, **env: str) -> Process:
    """Return a process of the command line's, not started yet."""
    options = ("--id", name, "--pool", pool, "--metrics-port", "0")
    return Process(
        name, "-m", "callboard", command, *arguments, *options, log=log, env={"CALLBOARD_REDIS_URL": url, **env}
    )


async def paused(pid: int, seconds: float) -> None:
    """Stop a process by SIGSTOP for so long; it goes on also when this is cancelled."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


class Server:
    """A Redis or Valkey of its own with its data in a file, always at the same port, that may be killed."""

    def __init__(self, data_dir: Path, *, persistence: Persistence = "always") -> None:
        self.data_dir = data_dir
        self._persistence: Persistence = persistence
        self._port = 0
        self._server: EmbeddedServer | None = None

    @property
    def url(self) -> str:
        """Where it listens, also while it is away."""
        return f"redis://127.0.0.1:{self._port}/0"

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._server is not None
        return self._server.pid

    @property
    def running(self) -> bool:
        """True until it has ended, by whomever."""
        return self._server is not None and psutil.Process(self._server.pid).status() != psutil.STATUS_ZOMBIE

    @property
    def kind(self) -> str:
        """Name and version."""
        assert self._server is not None
        return self._server.kind

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start it, with the data that it left; return when it answers."""
        server = EmbeddedServer(data_dir=self.data_dir, port=self._port, persistence=self._persistence)
        await server.start()
        self._server, self._port = server, server.port

    async def stop(self) -> None:
        """End it in order."""
        server, self._server = self._server, None
        if server is not None:
            await server.stop()

    async def kill(self) -> None:
        """End it by SIGKILL; what it had acknowledged is in its file, whatever its persistence but none."""
        server, self._server = self._server, None
        assert server is not None
        os.kill(server.pid, signal.SIGKILL)
        await server.stop()

    def forget(self) -> None:
        """Delete its data; it must not run."""
        assert self._server is None
        for path in sorted(self.data_dir.rglob("*"), reverse=True):
            if path.name.startswith(("appendonly", "dump")) or path.parent.name.startswith("appendonly"):
                path.rmdir() if path.is_dir() else path.unlink()
