"""How fast one API process takes tasks, and pages through many.

    python -m benchmarks.api [--seconds 5] [--connections 32] [--waiting 100000]

Starts a server, a dispatcher and one API process of their own, as a user would, and prints one JSON line:

- ``single_per_s``: `POST /tasks/dispatch` of one task each, by `connections` clients that keep their connection;
- ``single_ms``: p50 and p99 of those requests;
- ``batch_per_s``: tasks per second in requests of 1,000 tasks, by two clients;
- ``page_ms``: p50 and p99 of the pages of 100 while a client pages through `waiting` tasks;
- ``cpu_us_per_request``: CPU (user + system) of the API process per single request.

The requests are written to plain sockets: a client library would take more time than what is measured.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import quantiles
from time import perf_counter
from typing import Any

import psutil

from benchmarks.throughput import PAYLOAD, process
from bus import Client, TaskCreate
from bus.embedded import EmbeddedServer

BATCH = 1_000
READY_S = 30


class Connection:
    """One connection that is kept."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def request(self, head: bytes, body: bytes = b"") -> tuple[int, bytes]:
        """Send one request, and return the status and the body of its answer."""
        length = b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body) if body else b""
        self._writer.write(head + b" HTTP/1.1\r\nHost: localhost\r\n" + length + b"\r\n" + body)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        status = int(answer[9:12])
        size = next(int(line[15:]) for line in answer.split(b"\r\n") if line.lower().startswith(b"content-length"))
        return status, await self._reader.readexactly(size)

    def close(self) -> None:
        """Close it."""
        self._writer.close()


async def connect(port: int) -> Connection:
    """Return a new connection."""
    return Connection(*await asyncio.open_connection("127.0.0.1", port))


async def at_once(
    port: int, clients: int, seconds: float, act: Callable[[Connection], Awaitable[int]]
) -> tuple[float, list[float]]:
    """Let so many clients act again and again; return the sum of what the acts returned per second, and their times."""
    total, times = 0, list[float]()
    began = perf_counter()

    async def client() -> None:
        nonlocal total
        connection = await connect(port)
        while (at := perf_counter()) - began < seconds:
            done = await act(connection)
            total += done
            times.append((perf_counter() - at) * 1000)
        connection.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return total / (perf_counter() - began), times


def spread(times: list[float]) -> dict[str, float]:
    """Return the median and the 99th percentile."""
    cuts = quantiles(times, n=100)
    return {"p50": round(cuts[49], 2), "p99": round(cuts[98], 2)}


async def measure(url: str, port: int, cpu: Callable[[], float], options: argparse.Namespace) -> dict[str, Any]:
    """Take all figures."""
    task = {"capability": "bench.noop", "payload": {"n": 1, "pad": PAYLOAD}}
    one, many = json.dumps(task).encode(), json.dumps({"tasks": [task] * BATCH}).encode()
    head = b"POST /api/v1/tasks/dispatch"

    async def single(connection: Connection) -> int:
        status, body = await connection.request(head, one)
        assert status == 202, body  # noqa: S101 - a refused task would be a wrong figure
        return 1

    async def batch(connection: Connection) -> int:
        status, body = await connection.request(head, many)
        assert status == 202, body  # noqa: S101 - likewise
        return BATCH

    await at_once(port, 4, 0.5, single)
    before = cpu()
    singles, times = await at_once(port, options.connections, options.seconds, single)
    used = (cpu() - before) / len(times)
    batches, _ = await at_once(port, 2, options.seconds, batch)
    return {
        "single_per_s": round(singles),
        "single_ms": spread(times),
        "batch_per_s": round(batches),
        "page_ms": spread(await _pages(url, port, options.waiting)),
        "cpu_us_per_request": round(used * 1e6),
    }


async def _pages(url: str, port: int, waiting: int) -> list[float]:
    times = list[float]()
    async with Client(url) as client:
        await client.submit_many(TaskCreate(capability="bench.page", payload=n) for n in range(waiting))
        while (await client.queue_status()).unread:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.1)
    connection, cursor, seen = await connect(port), "", 0
    while seen < waiting:
        at = perf_counter()
        status, body = await connection.request(f"GET /api/v1/tasks?limit=100{cursor}".encode())
        times.append((perf_counter() - at) * 1000)
        page = json.loads(body)
        assert status == 200, page  # noqa: S101 - likewise
        seen += len(page["tasks"])
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    connection.close()
    return times


async def _listening(port: int) -> None:
    async with asyncio.timeout(READY_S):
        while True:
            try:
                (await connect(port)).close()
            except OSError:
                await asyncio.sleep(0.05)
            else:
                return


async def run(options: argparse.Namespace) -> dict[str, Any]:
    """Start everything, and measure."""
    api = ("callboard", "api", "--port", str(options.port))
    with tempfile.TemporaryDirectory() as folder:
        async with (
            EmbeddedServer(data_dir=Path(folder), port=0, persistence="none") as server,
            process("callboard", "dispatcher", url=server.url),
            process(*api, url=server.url) as child,
        ):
            await _listening(options.port)
            times = psutil.Process(child.pid).cpu_times
            return await measure(server.url, options.port, lambda: sum(times()[:2]), options)


def main() -> None:
    """Measure once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="how long each kind of request is sent")
    parser.add_argument("--connections", type=int, default=32, help="clients that send single tasks")
    parser.add_argument("--waiting", type=int, default=100_000, help="tasks to page through")
    parser.add_argument("--port", type=int, default=8427, help="where the API listens")
    json.dump(asyncio.run(run(parser.parse_args())), sys.stdout)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
