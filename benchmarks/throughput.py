"""How many no-op tasks a second pass through one dispatcher and one agent of 100 slots.

    python -m benchmarks.throughput --tasks 20000 [--persistence none|everysec|always]

Starts a server, a dispatcher and an agent as processes of their own, as a user would, and prints one JSON line:

- ``enqueue_per_s``: submission by `submit_many` with no agent there;
- ``drain_per_s``: the agent is started on the full queue; first to last completion;
- ``end_to_end_per_s``: first submission to last stored result, with the agent warm;
- ``cpu_us_per_task``: CPU (user + system) of each process from the first to the last completion of the drain.

Completions are read from the pool's events, which the leader writes in the same step as the results. A rate whose tasks
all ended in one batch is null: there is nothing to divide by. From about 10,000 tasks on the figures mean something.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

from bus import Client, TaskCreate
from bus.connection import Redis, connect
from bus.embedded import EmbeddedServer, Persistence
from bus.ids import DEFAULT_POOL
from bus.messages import EventBatch
from bus.names import DATA_FIELD, PoolNames

PAYLOAD = "x" * 180
NAMES = PoolNames(DEFAULT_POOL)


def tasks(count: int) -> Iterator[TaskCreate]:
    """Yield `count` tasks whose payload is 200 bytes of JSON."""
    return (TaskCreate(capability="bench.noop", payload={"n": n, "pad": PAYLOAD}) for n in range(count))


@asynccontextmanager
async def process(*command: str, url: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run `python -m command` until the block ends."""
    env = os.environ | {"CALLBOARD_REDIS_URL": url}
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        *command,
        env=env,
        stderr=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        yield child
    finally:
        if child.returncode is None:
            child.send_signal(signal.SIGTERM)
            await child.wait()


async def count_ended(
    redis: Redis, cursor: str, wanted: int, begun: Callable[[], None] = lambda: None
) -> tuple[float, float, int]:
    """Follow the events from `cursor` until `wanted` tasks ended; return (first, last, failures) by local time.

    `begun` is called when the first has ended.
    """
    first = last = 0.0
    ended = failed = 0
    while ended < wanted:
        reply: Any = await redis.xread({NAMES.events: cursor}, count=100, block=1000)
        for _, entries in reply or ():
            for entry_id, fields in entries:
                cursor = entry_id
                batch = EventBatch.model_validate_json(fields[DATA_FIELD.encode()])
                done = [t for t in batch.tasks if t.status.terminal]
                if done:
                    last = perf_counter()
                    if not ended:
                        first = last
                        begun()
                ended += len(done)
                failed += sum(1 for t in done if t.status.value != "COMPLETED")
    return first, last, failed


async def accepted(bus: Client, count: int) -> None:
    """Return when the leader has `count` waiting tasks in the ledger."""
    waiting = 0
    while waiting < count:
        await asyncio.sleep(0.05)
        waiting = (await bus.queue_status()).waiting


async def last_event(redis: Redis) -> str:
    """Return the id of the newest event."""
    newest: Any = await redis.xrevrange(NAMES.events, count=1)
    return newest[0][0].decode() if newest else "0-0"


def cpu_of(pid: int) -> float:
    """Return user + system seconds of a process and its waited-for children, of all children that live too."""
    ticks = os.sysconf("SC_CLK_TCK")
    total = 0
    pids = [pid]
    while pids:
        at = pids.pop()
        try:
            stat = Path(f"/proc/{at}/stat").read_text().rpartition(")")[2].split()
            pids += [int(p) for p in Path(f"/proc/{at}/task/{at}/children").read_text().split()]
        except OSError:
            continue
        total += sum(int(x) for x in stat[11:15])
    return total / ticks


def rate(count: int, seconds: float) -> int | None:
    """Return how many a second; None if no time has passed."""
    return round(count / seconds) if seconds else None


async def measure(count: int, persistence: Persistence) -> dict[str, Any]:
    """Run the three measurements on fresh processes."""
    with tempfile.TemporaryDirectory() as folder:
        async with (
            EmbeddedServer(data_dir=Path(folder), port=0, persistence=persistence) as server,
            process("callboard", "dispatcher", url=server.url) as dispatcher,
            Client(url=server.url) as bus,
        ):
            redis = connect(server.url, name="benchmark")
            began = perf_counter()
            await bus.submit_many(tasks(count))
            enqueued = perf_counter() - began
            await accepted(bus, count)
            cursor = await last_event(redis)
            async with process("callboard", "agent", "benchmarks.agents:Noop", url=server.url) as agent:
                pids = {"dispatcher": dispatcher.pid, "server": server.pid, "agent": agent.pid}
                before: dict[str, float] = {}
                first, last, failed = await count_ended(
                    redis, cursor, count, lambda: before.update({name: cpu_of(pid) for name, pid in pids.items()})
                )
                cpu = {name: cpu_of(pid) - before[name] for name, pid in pids.items()}
                cursor = await last_event(redis)
                began = perf_counter()
                following = asyncio.create_task(count_ended(redis, cursor, count))
                await bus.submit_many(tasks(count))
                _, end, failed_too = await following
            await redis.aclose()
    return {
        "tasks": count,
        "persistence": persistence,
        "server": server.kind,
        "enqueue_per_s": rate(count, enqueued),
        "drain_per_s": rate(count, last - first),
        "end_to_end_per_s": rate(count, end - began),
        "failed": failed + failed_too,
        "cpu_us_per_task": {name: round(seconds / count * 1e6, 1) for name, seconds in cpu.items()},
    }


def positive(text: str) -> int:
    """Read a number of tasks."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least one task is needed")
    return number


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--tasks",
        type=positive,
        default=20_000,
        help="in each measurement; 20000 by default, and less than about 10000 says little",
    )
    parser.add_argument("--persistence", choices=("none", "everysec", "always"), default="none")
    arguments = parser.parse_args()
    print(json.dumps(asyncio.run(measure(arguments.tasks, arguments.persistence))))


if __name__ == "__main__":
    main()
