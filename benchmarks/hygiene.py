"""Whether anything is left behind: memory of a server, a dispatcher and an agent over a million tasks, and after them.

    python -m benchmarks.hygiene [--tasks 1000000] [--retention 30]

Lets one agent complete the tasks, a few thousand under way at a time, and prints one JSON line: `samples` are resident
MB of agent and dispatcher and used MB of the server after each fifth; `redis_bytes` what the server used before the
first task, and what when the retention is over and the lists have been pruned.
"""

import argparse
import asyncio
import json
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from benchmarks.idle import family
from benchmarks.scale import DISPATCHER, MB, resident, used
from benchmarks.throughput import NAMES, count_ended, last_event, positive, process, tasks
from bus import Client
from bus.connection import connect
from bus.embedded import EmbeddedServer

PART = 5_000
PRUNED_S = 75
"""The lists of ended tasks are pruned once a minute."""


async def measure(count: int, retention: int) -> dict[str, Any]:
    """Run all of it."""
    samples: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(EmbeddedServer(data_dir=Path(folder), port=0, persistence="none"))
            redis = connect(server.url, name="benchmark")
            stack.push_async_callback(redis.aclose)
            kept = ("--retention", f"{retention}s", "--events-retention", f"{retention}s")
            dispatcher = await stack.enter_async_context(process(*DISPATCHER, *kept, url=server.url))
            bus = await stack.enter_async_context(Client(url=server.url))
            agent = ("callboard", "agent", "benchmarks.agents:Noop", "--metrics-port", "0")
            supervisor = await stack.enter_async_context(process(*agent, url=server.url))
            await bus.submit_many(tasks(1))
            await count_ended(redis, "0-0", 1)
            before = await used(redis)
            for done in range(PART, count + PART, PART):
                cursor = await last_event(redis)
                await bus.submit_many(tasks(PART))
                await count_ended(redis, cursor, PART)
                if done % max(PART, count // 5) == 0:
                    samples.append(
                        {
                            "tasks": done,
                            "agent_mb": round(resident(family(supervisor.pid)[-1]) / MB, 1),
                            "dispatcher_mb": round(resident(dispatcher.pid) / MB, 1),
                            "redis_mb": round(await used(redis) / MB, 1),
                        }
                    )
            await asyncio.sleep(retention + PRUNED_S)
            left = await redis.dbsize(), await redis.zcard(NAMES.finished), await redis.xlen(NAMES.events)
            after = await used(redis)
    return {
        "tasks": count,
        "retention_s": retention,
        "samples": samples,
        "redis_bytes": {"before": before, "after": after},
        "left": dict(zip(("keys", "finished", "events"), left, strict=True)),
    }


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Parse the arguments, measure, print; return what was printed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=positive, default=1_000_000, help="in all")
    parser.add_argument("--retention", type=positive, default=30, help="of ended tasks and of events, in seconds")
    given = parser.parse_args(argv)
    result = asyncio.run(measure(given.tasks, given.retention))
    print(json.dumps(result))
    return result


if __name__ == "__main__":
    main()
