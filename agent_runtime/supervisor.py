"""Starts an agent's processes, starts them anew when they crash, passes signals on; nothing else, so it cannot crash.

A child's exit code says what to do, see `ExitCode`; any other is a crash. The children die with the supervisor, also
when that is killed (`bus.lifeline`): an agent that nobody watches would go on taking tasks.
"""

import asyncio
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from agent_runtime.exit_codes import ExitCode
from bus.backoff import Backoff
from bus.lifeline import TiedProcess, spawn_tied

LOG: Final = logging.getLogger("callboard.agent")

STEADY_S: Final = 30.0
"""A process that has lived so long is not held answerable for earlier crashes."""
FAILED: Final = 1


class Supervisor:
    """Keeps `processes` children alive, each started by `command(number)`, whose first item is an absolute path.

    They are counted from 1, as their ids are. `grace` (seconds) is what a child gets between SIGTERM and SIGKILL: more
    than its own grace for running tasks.
    """

    def __init__(
        self,
        command: Callable[[int], Sequence[str]],
        *,
        processes: int = 1,
        grace: float = 20.0,
        env: Mapping[str, str] | None = None,
        backoff_base: float = 0.5,
        backoff_cap: float = 30.0,
    ) -> None:
        self._command = command
        self._processes = processes
        self._grace = grace
        self._env = env
        self._base = backoff_base
        self._cap = backoff_cap
        self._children: dict[int, TiedProcess] = {}
        self._stop = asyncio.Event()

    @property
    def pids(self) -> dict[int, int]:
        """The process id of each child that runs now, by its number, from 1."""
        return {number: child.process.pid for number, child in self._children.items()}

    async def run(self, stop: asyncio.Event) -> int:
        """Supervise until `stop` is set and the children have ended, or none is left to be started again.

        Returns 0, or 1 if a child had to be killed, was superseded or could not start as it was told to. Cancelling
        this call kills the children. Must run in the main thread, where the kernel ties the children to this process.
        """
        self._stop = stop
        # Not asyncio's own waiting for children: theirs differs by platform and loop, a thread that waits does not.
        with ThreadPoolExecutor(self._processes, thread_name_prefix="callboard-supervisor") as threads:
            try:
                async with asyncio.TaskGroup() as group:
                    lives = [group.create_task(self._keep(number, threads)) for number in range(1, self._processes + 1)]
            finally:
                for child in list(self._children.values()):
                    child.end()
        return max((life.result() for life in lives), default=0)

    async def _keep(self, number: int, threads: ThreadPoolExecutor) -> int:
        backoff = Backoff(base=self._base, cap=self._cap)
        while not self._stop.is_set():
            born = time.monotonic()
            code = await self._live(number, threads)
            age = time.monotonic() - born
            if self._stop.is_set() or code == ExitCode.STOPPED:
                return FAILED if code == -signal.SIGKILL else 0
            if code == ExitCode.SUPERSEDED:
                LOG.error("agent process %d was superseded: it is not started again", number)
                return FAILED
            if code == ExitCode.MISCONFIGURED:
                return FAILED
            if age >= STEADY_S or code == ExitCode.RESTART:
                backoff.reset()
            if code == ExitCode.RESTART:
                LOG.info("agent process %d restarts as it was told", number)
                continue
            wait = backoff.next()
            LOG.warning("agent process %d ended with %s after %.1f s; again in %.1f s", number, _said(code), age, wait)
            await self._pause(wait)
        return 0

    async def _live(self, number: int, threads: ThreadPoolExecutor) -> int:
        """Start one child and return its exit code; on a stop it is told to end, and killed after the grace."""
        child = spawn_tied(self._command(number), log=None, env=self._env if self._env is not None else os.environ)
        self._children[number] = child
        try:
            ended = asyncio.get_running_loop().run_in_executor(threads, child.process.wait)
            stopped = asyncio.create_task(self._stop.wait())
            await asyncio.wait((ended, stopped), return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            if not ended.done():
                child.process.terminate()
                await asyncio.wait((ended,), timeout=self._grace)
            if not ended.done():
                LOG.warning("agent process %d does not end within %.0f s: killing it", number, self._grace)
                child.process.kill()
            return await ended
        finally:
            del self._children[number]
            child.end()

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            return


def _said(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
