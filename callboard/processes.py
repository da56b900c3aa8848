"""Child processes that are started together, watched, and stopped in order; none outlives this process.

A child is tied to this process by `bus.lifeline`: it dies with it, also when it is killed.
"""

import asyncio
import os
import signal
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from bus.lifeline import TiedProcess, spawn_tied

GRACE_S: Final = 30.0


class Child:
    """One process of a `ProcessGroup`."""

    def __init__(self, name: str, tied: TiedProcess) -> None:
        self.name = name
        self._tied = tied
        self._ended = asyncio.Event()
        self._told = False
        loop = asyncio.get_running_loop()
        # A thread that waits, not asyncio's own watching of children: that differs by platform and loop.
        threading.Thread(target=self._watch, args=(loop,), name=f"waits for {name}", daemon=True).start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._tied.process.pid

    @property
    def returncode(self) -> int | None:
        """Its exit code, minus the signal's number if that ended it; None while it runs."""
        return self._tied.process.returncode

    @property
    def ending(self) -> str:
        """How it ended, in words."""
        code = self.returncode
        if code is None or code >= 0:
            return f"exit code {code}"
        return signal.Signals(-code).name

    def terminate(self) -> None:
        """Ask it to stop, by SIGTERM. To repeat it has no effect: for many a program the second means `at once`."""
        if not self._told:
            self._told = True
            self._tied.process.terminate()

    def kill(self) -> None:
        """Send SIGKILL."""
        self._tied.process.kill()

    def end(self) -> None:
        """Kill it if it still runs, and return when it has ended."""
        self._tied.end()

    async def wait(self) -> int:
        """Return its exit code when it has ended. Cancelling this leaves it running."""
        await self._ended.wait()
        return self._tied.process.wait()

    async def stop(self, grace: float) -> int:
        """Ask it to stop, kill it after `grace` seconds, or when this is cancelled, and return its exit code."""
        self.terminate()
        try:
            async with asyncio.timeout(grace):
                return await self.wait()
        except TimeoutError:
            self.kill()
            return await self.wait()
        finally:
            self.end()

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        self._tied.process.wait()
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._ended.set)


class ProcessGroup:
    """Child processes; as an async context manager it stops all of them at its end, the youngest first.

    `grace`, in seconds, is what each gets between SIGTERM and SIGKILL. To be used in the main thread.
    """

    def __init__(self, *, grace: float = GRACE_S) -> None:
        self._grace = grace
        self.children: list[Child] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(
        self, name: str, command: Sequence[str], *, env: Mapping[str, str] | None = None, log: Path | None = None
    ) -> Child:
        """Start a process; `command[0]` is an absolute path. Its output is ours, or is appended to `log`.

        `env` is added to this process' environment. Raises OSError if it cannot be started.
        """
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
        child = Child(name, spawn_tied(command, log=log, env=os.environ | dict(env or {})))
        self.children.append(child)
        return child

    async def stop(self) -> None:
        """Stop all that still run, one after the other, the youngest first. When cancelled, kills the rest."""
        try:
            while self.children:
                await self.children[-1].stop(self._grace)
                self.children.pop()
        finally:
            for child in self.children:
                child.end()

    async def first_to_end(self) -> Child:
        """Return the first child that ends."""
        waits = {asyncio.create_task(child.wait()): child for child in self.children}
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            return waits[done.pop()]
        finally:
            for wait in waits:
                wait.cancel()
