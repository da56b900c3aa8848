"""Measures one program, in that program's environment: the one producer of its tasks, who starts its workers, too.

    CALLBOARD_BENCHMARK_URL=redis://127.0.0.1:6379/0 python -m benchmarks.compare.producer PEER [--tasks 10000]

Empties the server! Prints a line of JSON for each part as soon as it is measured; a part that fails says so in its
place. When a task began is told by the task itself (`benchmarks.stopwatch`), so it is told alike of all.
"""

import argparse
import asyncio
import importlib
import json
import os
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from statistics import quantiles
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

from benchmarks.compare.peer import URL, Peer
from benchmarks.stopwatch import Stopwatch

RATE, RATE_S = 200, 5.0
SINGLES = 1000
WAITING, URGENT, BEGUN = 5500, 50, 500
RERUN_S = 60.0
STANDBY_S = 4.0
PART_S = 180.0
POLL_S = 0.002


@asynccontextmanager
async def running(command: list[str]) -> AsyncIterator[Callable[[], None]]:
    """Run a command in a process group of its own; yield what kills all of it, which is done at the end as well."""
    quiet = asyncio.subprocess.DEVNULL
    child = await asyncio.create_subprocess_exec(
        *command, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True
    )

    def kill() -> None:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)

    try:
        yield kill
    finally:
        kill()
        await child.wait()


def empty() -> None:
    """Delete everything on the server."""
    where = urlsplit(URL)
    with socket.create_connection((where.hostname or "127.0.0.1", where.port or 6379)) as connection:
        connection.sendall(b"FLUSHALL\r\n")
        assert connection.recv(5) == b"+OK\r\n"  # noqa: S101 - else figures would be of something else


async def until(condition: Callable[[], bool]) -> None:
    """Return when it is so."""
    while not condition():  # noqa: ASYNC110 - other processes write what is looked at
        await asyncio.sleep(POLL_S)


def spread(seconds: list[float]) -> dict[str, float]:
    """Return median and 99th percentile, in ms."""
    cuts = quantiles(seconds, n=100)
    return {"p50": round(cuts[49] * 1000, 2), "p99": round(cuts[98] * 1000, 2)}


class Producer:
    """Measures a peer part by part; numbers of tasks are used once."""

    def __init__(self, peer: Peer, watch: Stopwatch, count: int) -> None:
        self.peer, self.watch, self.count = peer, watch, count
        self._next = 0

    def numbers(self, count: int) -> list[int]:
        """Return numbers that no task has yet."""
        self._next += count
        return list(range(self._next - count, self._next))

    async def began(self, numbers: list[int]) -> None:
        """Return when all of them have begun."""
        at = 0

        def all_of_them() -> bool:
            nonlocal at
            while at < len(numbers) and self.watch.began(numbers[at]):
                at += 1
            return at == len(numbers)

        await until(all_of_them)

    @asynccontextmanager
    async def stage(self) -> AsyncIterator[None]:
        """Empty the server, start what must run beside the worker, and connect."""
        empty()
        async with _all(self.peer.services()):
            await self.peer.open()
            try:
                yield
            finally:
                await self.peer.close()

    async def last(self, numbers: list[int], handles: list[Any]) -> float:
        """Return when the result of the task that began last is stored."""
        await self.began(numbers)
        which = max(range(len(numbers)), key=lambda i: self.watch.began(numbers[i]))
        await self.peer.result(handles[which])
        return monotonic()

    async def throughput(self) -> dict[str, Any]:
        """Measure submission without a worker, how fast one ends what waits, and both at once."""
        async with self.stage():
            one_by_one = self.numbers(SINGLES)
            at = monotonic()
            first = [await self.peer.submit(n) for n in one_by_one]
            singles = SINGLES / (monotonic() - at)
            many = self.numbers(self.count)
            at = monotonic()
            second = await self.peer.submit_many(many)
            submitted = self.count / (monotonic() - at)
            async with running(self.peer.worker()):
                everything = one_by_one + many
                end = await self.last(everything, first + second)
                drained = len(everything) / (end - min(map(self.watch.began, everything)))
                numbers = self.numbers(self.count)
                at = monotonic()
                handles = await self.peer.submit_many(numbers)
                through = self.count / (await self.last(numbers, handles) - at)
                latency = await self.latency()
        return {
            "submit_one_per_s": round(singles),
            "submit_many_per_s": round(submitted),
            "drain_per_s": round(drained),
            "end_to_end_per_s": round(through),
            **latency,
        }

    async def latency(self) -> dict[str, Any]:
        """Measure from submission to start and to result at a steady rate, a worker being there."""
        numbers = self.numbers(int(RATE * RATE_S))
        results, starts = list[float](), list[float]()

        async def one(number: int) -> None:
            at = monotonic()
            await self.peer.result(await self.peer.submit(number))
            results.append(monotonic() - at)
            starts.append(self.watch.began(number) - at)

        began = monotonic()
        under_way = list[asyncio.Task[None]]()
        for turn, number in enumerate(numbers):
            await asyncio.sleep(max(0.0, began + turn / RATE - monotonic()))
            if self.peer.blocking:
                await one(number)
            else:
                under_way.append(asyncio.create_task(one(number)))
        await asyncio.gather(*under_way)
        return {
            "rate": round(len(numbers) / (monotonic() - began)),
            "result_ms": spread(results),
            "start_ms": spread(starts),
        }

    async def urgent(self) -> dict[str, Any]:
        """Measure how long urgent tasks take to begin when others wait."""
        if not self.peer.priorities:
            return {"urgent_ms": None}
        async with self.stage():
            waiting, urgent = self.numbers(WAITING), self.numbers(URGENT)
            await self.peer.submit_many(waiting)
            async with running(self.peer.worker()):
                await self.began(waiting[:BEGUN])
                at = monotonic()
                await self.peer.submit_urgent(urgent)
                await self.began(urgent)
        return {"urgent_ms": round((max(map(self.watch.began, urgent)) - at) * 1000, 1)}

    async def rerun(self) -> dict[str, Any]:
        """Measure how long a task of a worker that is killed waits for another that stands by."""
        async with self.stage(), running(self.peer.worker()) as kill:
            number = self.numbers(1)[0]
            await self.peer.submit_held(number)
            await self.began([number])
            async with running(self.peer.worker()):
                await asyncio.sleep(STANDBY_S)  # it starts, and waits
                kill()
                at = monotonic()
                with suppress(TimeoutError):
                    async with asyncio.timeout(RERUN_S):
                        await until(lambda: self.watch.starts(number) > 1)
                again = self.watch.starts(number) > 1
        return {"rerun_s": round(self.watch.began(number) - at, 1) if again else f"not within {RERUN_S:g}"}


@asynccontextmanager
async def _all(commands: list[list[str]]) -> AsyncIterator[None]:
    if not commands:
        yield
        return
    async with running(commands[0]), _all(commands[1:]):
        yield


async def measure(peer: Peer, watch: Stopwatch, count: int, parts: list[str]) -> None:
    """Measure part by part; SIGTERM ends it, and the workers with it."""
    me = asyncio.current_task()
    assert me is not None  # noqa: S101 - we are in one
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, me.cancel)
    producer = Producer(peer, watch, count)
    print(json.dumps({"settings": peer.settings, "lease": peer.lease, "bulk": peer.bulk}), flush=True)
    chosen: dict[str, Callable[[], Awaitable[dict[str, Any]]]] = {
        "throughput": producer.throughput,
        "urgent": producer.urgent,
        "rerun": producer.rerun,
    }
    for name in parts:
        try:
            async with asyncio.timeout(PART_S):
                found = await chosen[name]()
        except Exception as error:  # noqa: BLE001 - whatever a program does, the others are measured
            found = {f"{name}_failed": f"{type(error).__name__}: {error}"}
        print(json.dumps(found), flush=True)


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer")
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--parts", nargs="+", default=["throughput", "urgent", "rerun"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        watch = Stopwatch.create(Path(folder) / "starts")
        peer: Peer = importlib.import_module(f"benchmarks.compare.adapters.{options.peer}").peer
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(measure(peer, watch, options.tasks, options.parts))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 - not everybody has a use for it
    except ImportError:
        return None
    return uvloop.new_event_loop


if __name__ == "__main__":
    main()
