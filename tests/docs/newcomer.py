"""A newcomer: a directory like a clone, a server, and the commands that a page prints, typed as they stand there."""

import asyncio
import os
import shlex
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

from bus.connection import DEFAULT_URL, connect
from callboard.ports import free_port
from dispatcher.api.settings import API_PORT
from tests.callboard.commandline import environment
from tests.docs.pages import ROOT

_API: Final = f"127.0.0.1:{API_PORT}"
_SHIMS: Final = {"callboard": "-P -m callboard", "python": "-u"}
_READY: Final = {
    ("callboard", "up"): "Ctrl-C stops everything",
    ("callboard", "dispatcher"): "serves pools",
    ("callboard", "agent"): "is signed in",
    ("callboard", "api"): "the API is at",
    ("python", "examples/wire_agent.py"): "is signed in",
}
"""Commands that run on, and what each says when it works: they are started, and stopped by Ctrl-C at the page's end."""


@dataclass(frozen=True)
class Ran:
    """How a command ended, or that it runs on (`code` is None), and what it has printed on both streams."""

    code: int | None
    printed: str


class _Background:
    """A command that runs on; its output is read as it comes."""

    def __init__(self, command: str, process: asyncio.subprocess.Process) -> None:
        self.command = command
        self.process = process
        self.printed = ""
        self._news = asyncio.Condition()
        self._reading = asyncio.create_task(self._read())

    async def wait_for(self, text: str) -> str:
        """Return all that was printed once `text` is in it, or when it has ended without."""
        async with asyncio.timeout(60), self._news:
            await self._news.wait_for(lambda: text in self.printed or self._reading.done())
        return self.printed

    async def end(self) -> None:
        """Press Ctrl-C; fail if that does not end it well."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGINT)
        try:
            async with asyncio.timeout(30):
                await self.process.wait()
        finally:
            if self.process.returncode is None:
                self.process.kill()
                await self.process.wait()
            await self._reading
        assert self.process.returncode == 0, f"`{self.command}` ended with {self.process.returncode}:\n{self.printed}"

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            async with self._news:
                self.printed += line.decode()
                self._news.notify_all()
        async with self._news:
            self._news.notify_all()


class Newcomer:
    """Types commands into terminals whose working directory is `folder`. `url` is where their server is."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self._folder = folder
        self._api = f"127.0.0.1:{free_port('127.0.0.1')}"
        programs = folder / ".venv" / "bin"
        programs.mkdir(parents=True)
        for name, arguments in _SHIMS.items():
            program = programs / name
            program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {arguments} "$@"\n')
            program.chmod(0o755)
        for name in ("examples", "Makefile", "pyproject.toml", "constraints.txt"):
            (folder / name).symlink_to(ROOT / name)
        self._env = environment(
            CALLBOARD_REDIS_URL=url,
            CALLBOARD_RETRY_BASE="PT0.02S",
            CALLBOARD_API_PORT=self._api.rpartition(":")[2],
            PATH=f"{programs}{os.pathsep}{os.environ['PATH']}",
        )
        self._background: list[_Background] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        while self._background:
            await self._background.pop().end()

    def save(self, name: str, text: str) -> None:
        """Write a file."""
        (self._folder / name).write_text(text)

    def here(self, text: str) -> str:
        """Return a text with the address of the API as it is here."""
        return text.replace(_API, self._api)

    async def type(self, command: str) -> Ran:
        """Run a command to its end, or start one that runs on and return when it works.

        Of `make` only the plan is made: the installation that it is for is the one which runs this test.
        """
        command = self.here(command)
        words = shlex.split(command, comments=True)
        program = Path(words[0]).name
        if program == "make":
            command = shlex.join(["make", "--dry-run", *words[1:]])
        ready = _READY.get((program, words[1] if len(words) > 1 else ""))
        process = await asyncio.create_subprocess_exec(
            *("sh", "-c", command if ready is None else f"exec {command}"),
            cwd=self._folder,
            env=self._env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        if ready is None:
            async with asyncio.timeout(60):
                printed, _ = await process.communicate()
            return Ran(process.returncode, self._told(printed.decode()))
        started = _Background(command, process)
        self._background.append(started)
        so_far = await started.wait_for(ready)
        if ready in so_far:
            return Ran(None, self._told(so_far))
        self._background.remove(started)
        return Ran(await process.wait(), self._told(so_far))

    def _told(self, printed: str) -> str:
        """Return what would have been printed with the server and the API where `callboard up` has them."""
        return printed.replace(self.url, DEFAULT_URL).replace(self._api, _API)


@asynccontextmanager
async def newcomer_at(url: str, folder: Path) -> AsyncIterator[Newcomer]:
    """Provide a newcomer with a database of the server at `url` in which nothing is, and leave it empty.

    The pages use the pool that everybody uses, so a database of its own is what keeps each apart.
    """
    for number in range(1, 16):
        place = urlsplit(url)._replace(path=f"/{number}").geturl()
        async with connect(place, name="newcomer") as redis:
            if await redis.dbsize():
                continue
            try:
                async with Newcomer(place, folder) as newcomer:
                    yield newcomer
            finally:
                await redis.flushdb()
            return
    raise AssertionError(f"no database of {url} is empty")
