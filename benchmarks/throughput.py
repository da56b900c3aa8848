"""How many no-op tasks a second pass through one dispatcher and one agent of 100 slots.

    python -m benchmarks.throughput --tasks 20000 [--persistence none|everysec|always] [--runs 1]

Starts a server, a dispatcher and an agent as processes of their own, as a user would, and prints one JSON line, of
several runs the median of each figure:

- ``submit_one_per_s``: one coroutine submits, and awaits each receipt; ``submit_each_per_s``: two hundred do so;
- ``enqueue_per_s``: submission by `submit_many` with no agent there;
- ``drain_per_s``: the agent is started on the full queue; first to last completion;
- ``end_to_end_per_s``: first submission to last stored result, with the agent warm;
- ``cpu_us_per_task``: CPU (user + system) of each process from the first to the last completion of the drain, and of
  the submitter per task of `submit_many`, by the processes' own accounting;
- ``commands_per_task``: what the server executes, those inside of scripts too, to accept a task (``submitted``) and
  from there to its end (``drained``).

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
from statistics import median
from time import perf_counter, process_time
from typing import Any

from bus import Client, TaskCreate
from bus.connection import Redis, connect
from bus.embedded import EmbeddedServer, Persistence
from bus.ids import DEFAULT_POOL
from bus.long_process import new_loop
from bus.messages import EventBatch
from bus.names import DATA_FIELD, PoolNames

PAYLOAD = "x" * 180
NAMES = PoolNames(DEFAULT_POOL)
SINGLES, COROUTINES = 1000, 200


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


async def executed(redis: Redis) -> int:
    """Return how many commands the server has executed so far, those inside of scripts too."""
    return sum(told["calls"] for told in (await redis.info("commandstats")).values())


async def singles(bus: Client, count: int, coroutines: int) -> int | None:
    """Let so many coroutines submit one task after the other; return how many a second are receipted."""

    async def submitter() -> None:
        for task in tasks(count // coroutines):
            await bus.submit("bench.single", task.payload)

    began = perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(coroutines):
            group.create_task(submitter())
    return rate(count, perf_counter() - began)


async def forget_singles(bus: Client) -> None:
    """Take them out of the queue, once the leader has read all of them."""
    while (await bus.queue_status()).unread:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0.05)
    await bus.cancel_matching("capability=bench.single", timeout=60)


async def measure(count: int, persistence: Persistence) -> dict[str, Any]:
    """Take all figures on fresh processes."""
    with tempfile.TemporaryDirectory() as folder:
        async with (
            EmbeddedServer(data_dir=Path(folder), port=0, persistence=persistence) as server,
            process("callboard", "dispatcher", url=server.url) as dispatcher,
            Client(url=server.url) as bus,
        ):
            redis = connect(server.url, name="benchmark")
            found: dict[str, Any] = {"tasks": count, "persistence": persistence, "server": server.kind}
            found["submit_one_per_s"] = await singles(bus, SINGLES, 1)
            found["submit_each_per_s"] = await singles(bus, max(COROUTINES, count // 2), COROUTINES)
            await forget_singles(bus)
            found |= await flow(count, bus, redis, {"dispatcher": dispatcher.pid, "server": server.pid})
            await redis.aclose()
    return found


async def flow(count: int, bus: Client, redis: Redis, pids: dict[str, int]) -> dict[str, Any]:
    """Submit `count` tasks, drain them, and send as many through a warm agent."""
    commands, cpu = [await executed(redis)], process_time()
    began = perf_counter()
    await bus.submit_many(tasks(count))
    enqueued, cpu = perf_counter() - began, process_time() - cpu
    await accepted(bus, count)
    cursor = await last_event(redis)
    commands.append(await executed(redis))
    async with process("callboard", "agent", "benchmarks.agents:Noop", url=bus.url) as agent:
        pids |= {"agent": agent.pid}
        before: dict[str, float] = {}
        first, last, failed = await count_ended(
            redis, cursor, count, lambda: before.update({name: cpu_of(pid) for name, pid in pids.items()})
        )
        used = {name: cpu_of(pid) - before[name] for name, pid in pids.items()} | {"submitter": cpu}
        commands.append(await executed(redis))
        cursor = await last_event(redis)
        began = perf_counter()
        following = asyncio.create_task(count_ended(redis, cursor, count))
        await bus.submit_many(tasks(count))
        _, end, failed_too = await following
    return {
        "enqueue_per_s": rate(count, enqueued),
        "drain_per_s": rate(count, last - first),
        "end_to_end_per_s": rate(count, end - began),
        "failed": failed + failed_too,
        "cpu_us_per_task": {name: round(seconds / count * 1e6, 1) for name, seconds in used.items()},
        "commands_per_task": {
            "submitted": round((commands[1] - commands[0]) / count, 1),
            "drained": round((commands[2] - commands[1]) / count, 1),
        },
    }


def medians(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the median of each figure of several runs; of what is no figure, the first run's."""
    merged: dict[str, Any] = {}
    for name, value in runs[0].items():
        values = [run[name] for run in runs]
        if isinstance(value, dict):
            merged[name] = medians(values)
        elif all(isinstance(one, int | float) for one in values):
            merged[name] = median(values)
        else:
            merged[name] = value
    return merged


def positive(text: str) -> int:
    """Read a number of tasks."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least one task is needed")
    return number


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--tasks",
        type=positive,
        default=20_000,
        help="in each measurement; 20000 by default, and less than about 10000 says little",
    )
    parser.add_argument("--persistence", choices=("none", "everysec", "always"), default="none")
    parser.add_argument("--runs", type=positive, default=1, help="of which the median is told")
    given = parser.parse_args(argv)
    runs = []
    for _ in range(given.runs):
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runs.append(runner.run(measure(given.tasks, given.persistence)))
    found = medians(runs)
    print(json.dumps(found))
    return found


if __name__ == "__main__":
    main()
