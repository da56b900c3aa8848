"""What a submitting process pays: for tasks by the batch, one by one, by many coroutines, and for their results.

    python -m benchmarks.client [--tasks 20000]

Starts a server, and writes replies itself as a leader would: nothing else runs. Prints one JSON line, rates per second
and microseconds of this process' CPU for each task:

- ``many``: `submit_many` of tasks that are made on the way;
- ``one_by_one``: each `submit` awaited before the next;
- ``at_once``: `submit` by 200 coroutines;
- ``results``: `result()` of all of them, awaited together, with the replies there.
"""

import argparse
import asyncio
import gc
import json
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, Final

from benchmarks.throughput import NAMES, PAYLOAD, positive, tasks
from bus import Client
from bus.connection import Redis, connect
from bus.embedded import EmbeddedServer
from bus.handle import TaskHandle
from bus.long_process import new_loop
from bus.names import DATA_FIELD

COROUTINES: Final = 200
PER_REPLY: Final = 100


async def timed(count: int, work: Callable[[], Awaitable[object]]) -> dict[str, float]:
    """Return what `work` on `count` tasks takes."""
    gc.collect()
    began, cpu = perf_counter(), process_time()
    await work()
    return {
        "per_s": round(count / (perf_counter() - began)),
        "cpu_us": round((process_time() - cpu) / count * 1e6, 1),
    }


async def one_by_one(bus: Client, count: int) -> None:
    """Submit each when the one before is stored."""
    for n in range(count):
        await bus.submit("bench.noop", {"n": n, "pad": PAYLOAD})


async def at_once(bus: Client, count: int) -> None:
    """Submit from many coroutines."""
    await asyncio.gather(*(one_by_one(bus, count // COROUTINES) for _ in range(COROUTINES)))


async def reply_all(redis: Redis, bus: Client, handles: list[TaskHandle[Any]]) -> None:
    """Write the outcomes of all tasks, as a leader would."""
    stream = NAMES.replies(bus._link.client_id)  # noqa: SLF001 - the client's own name, which leaders learn from tasks
    for start in range(0, len(handles), PER_REPLY):
        outcomes = [
            {"task_id": one.id, "status": "COMPLETED", "attempt": 1, "agent_id": "a1", "output": {"n": 1}}
            for one in handles[start : start + PER_REPLY]
        ]
        await redis.xadd(stream, {DATA_FIELD: json.dumps({"v": 1, "outcomes": outcomes})})


async def measure(count: int) -> dict[str, Any]:
    """Run all of it on a fresh server."""
    with tempfile.TemporaryDirectory() as folder:
        async with (
            EmbeddedServer(data_dir=Path(folder), port=0, persistence="none") as server,
            Client(url=server.url) as bus,
        ):
            redis = connect(server.url, name="benchmark")
            handles: list[TaskHandle[Any]] = []

            async def many() -> None:
                handles.extend(await bus.submit_many(tasks(count)))

            found: dict[str, Any] = {"tasks": count, "many": await timed(count, many)}
            few = max(COROUTINES, count // 10)
            found["one_by_one"] = await timed(few, lambda: one_by_one(bus, few))
            found["at_once"] = await timed(few * 5 // COROUTINES * COROUTINES, lambda: at_once(bus, few * 5))
            await reply_all(redis, bus, handles)
            found["results"] = await timed(count, lambda: asyncio.gather(*(one.result() for one in handles)))
            await redis.aclose()
    return found


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=positive, default=20_000)
    with asyncio.Runner(loop_factory=new_loop) as runner:
        print(json.dumps(runner.run(measure(parser.parse_args().tasks))))


if __name__ == "__main__":
    main()
