"""What measurements of the whole run on: a server, dispatchers and agents as processes of their own, as users have.

Each process may be killed, with all that it has started. The program that measures is the client.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from statistics import quantiles
from tempfile import TemporaryDirectory
from time import monotonic
from types import TracebackType
from typing import Any, Self, TypeVar

from benchmarks.stopwatch import Stopwatch
from bus import Client
from bus.connection import URL_VARIABLE
from bus.embedded import EmbeddedServer, Persistence
from bus.long_process import new_loop

T = TypeVar("T")

POLL_S = 0.002
WARM = 200


class Member:
    """A process of `callboard`, the first of a process group."""

    def __init__(self, child: asyncio.subprocess.Process) -> None:
        self._child = child

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    def kill(self) -> None:
        """Kill it and all that it has started (SIGKILL)."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    async def stop(self) -> None:
        """End it in order; after five seconds otherwise."""
        with suppress(ProcessLookupError):
            self._child.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(5):
                await self._child.wait()
        except TimeoutError:
            self.kill()
            await self._child.wait()


class Stage:
    """The server, whoever is started on it, a client, and the stopwatch of the tasks; a context manager."""

    def __init__(self, *, persistence: Persistence = "none") -> None:
        self._stack = AsyncExitStack()
        self._persistence: Persistence = persistence
        self._numbers = 0

    async def __aenter__(self) -> Self:
        folder = Path(self._stack.enter_context(TemporaryDirectory()))
        self._data = folder / "server"
        self._data.mkdir()
        self.watch = Stopwatch.create(folder / "starts")
        self.server = EmbeddedServer(data_dir=self._data, port=0, persistence=self._persistence)
        await self.server.start()
        self._stack.push_async_callback(self._stop_server)
        self.url = self.server.url
        self.bus = await self._stack.enter_async_context(Client(self.url))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def start(self, *command: str) -> Member:
        """Start `python -m command` on the server."""
        quiet = asyncio.subprocess.DEVNULL
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", *command),
            env=os.environ | {URL_VARIABLE: self.url},
            stdin=quiet,
            stdout=quiet,
            stderr=quiet,
            start_new_session=True,
        )
        member = Member(child)
        self._stack.push_async_callback(member.stop)
        return member

    async def dispatcher(self) -> Member:
        """Start a dispatcher."""
        return await self.start("callboard", "dispatcher", "--metrics-port", "0")

    async def agent(self) -> Member:
        """Start an agent of a hundred slots."""
        return await self.start("callboard", "agent", "benchmarks.agents:Noop")

    async def warm_up(self) -> None:
        """Return when tasks flow."""
        for handle in [await self.bus.submit("bench.noop", {"n": n}) for n in self.numbers(WARM)]:
            await handle.result(60)

    def numbers(self, count: int) -> list[int]:
        """Return numbers that no task has yet."""
        self._numbers += count
        return list(range(self._numbers - count, self._numbers))

    async def began(self, numbers: list[int]) -> float:
        """Return when the last of these tasks began, once all have."""
        for number in numbers:
            await until(lambda number=number: self.watch.began(number) > 0)  # type: ignore[misc]
        return max(map(self.watch.began, numbers))

    async def kill_server(self) -> None:
        """Kill the server (SIGKILL)."""
        os.kill(self.server.pid, signal.SIGKILL)
        await self.server.stop()

    async def restart_server(self) -> None:
        """Start it again with its data, where it was."""
        port = int(self.url.rpartition(":")[2].partition("/")[0])
        self.server = EmbeddedServer(data_dir=self._data, port=port, persistence=self._persistence)
        await self.server.start()

    async def _stop_server(self) -> None:
        await self.server.stop()


async def until(condition: Callable[[], bool]) -> None:
    """Return when it is so."""
    while not condition():  # noqa: ASYNC110 - other processes write what is looked at
        await asyncio.sleep(POLL_S)


async def paced(rate: float, count: int, one: Callable[[int], Coroutine[Any, Any, None]]) -> None:
    """Begin `one(0)`, `one(1)`, … at a steady rate, whether earlier ones have ended or not; return when all have."""
    began = monotonic()
    under_way: list[asyncio.Task[None]] = []
    for turn in range(count):
        ahead = began + turn / rate - monotonic()
        if ahead > 0:
            await asyncio.sleep(ahead)
        under_way.append(asyncio.create_task(one(turn)))
    await asyncio.gather(*under_way)


def spread(seconds: list[float]) -> dict[str, float]:
    """Return median and 99th percentile, in ms."""
    cuts = quantiles(seconds, n=100)
    return {"p50": round(cuts[49] * 1000, 2), "p99": round(cuts[98] * 1000, 2)}


def run(measurement: Coroutine[Any, Any, T]) -> T:
    """Run a measurement in the event loop that Callboard's own processes have."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(measurement)
