"""What a million waiting tasks cost, and what they slow down.

    python -m benchmarks.scale [--tasks 1000000] [--agents 200] [--drained 20000] [--listpack 1024]

Starts a server and dispatchers as processes of their own, fills the pool by `Client.submit_many` with tasks of 200
bytes of JSON, and prints one JSON line:

- ``accepted_per_s``: first submission to the last task in the ledger; ``submitted_per_s``: to the last receipt;
- ``redis_bytes_per_task``: growth of the server's used memory, and of that ``events``, which go after a quarter of an
  hour, and ``record``, one task's own key;
- ``leader_mb``: resident memory of the leader, empty and full;
- ``take_over_s``: the leader is killed (SIGKILL) while an agent waits and another stands by: until the first
  assignment, the leader's lease of three seconds included, and until a submission is accepted, with all loaded;
- ``audit_s``: `callboard doctor`'s audit of all of it, and this process's growth by it in MB;
- ``drain``: completions per second, and the leader's processor time for each in µs: of one agent of 100 slots with that
  much waiting, and with 1,000, before; also of `--agents` agents in one process.
"""

import argparse
import asyncio
import json
import os
import signal
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.throughput import NAMES, accepted, count_ended, cpu_of, last_event, positive, process, rate, tasks
from bus import Client
from bus.connection import Redis, connect
from bus.embedded import EmbeddedServer
from dispatcher.audit.auditor import Auditor

MB = 1_000_000
DISPATCHER = ("callboard", "dispatcher", "--leader-lease", "3s", "--metrics-port", "0")


def resident(pid: int | str = "self") -> int:
    """Return the resident memory of a process, in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def used(redis: Redis) -> int:
    """Return what the server uses for data and clients, in bytes."""
    return int((await redis.info("memory"))["used_memory"])


async def fill(bus: Client, count: int) -> dict[str, int | None]:
    """Submit `count` tasks and wait until they are in the ledger; return how many a second."""
    before = (await bus.queue_status()).waiting
    began = perf_counter()
    await bus.submit_many(tasks(count))
    sent = perf_counter()
    await accepted(bus, before + count)
    return {
        "submitted_per_s": rate(count, sent - began),
        "accepted_per_s": rate(count, perf_counter() - began),
    }


async def drain(url: str, redis: Redis, count: int, agents: int, leader: int) -> dict[str, float | None]:
    """Let agents of 100 slots in all complete tasks; return how many a second, and what each costs the leader."""
    before: list[float] = []
    cursor = await last_event(redis)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(process("benchmarks.crowd", str(agents), url=url))
        first, last, _ = await count_ended(redis, cursor, count, lambda: before.append(cpu_of(leader)))
        spent = cpu_of(leader) - before[0]
    return {"per_s": rate(count, last - first), "leader_us": round(spent / count * 1e6, 1)}


async def take_over(url: str, bus: Client, redis: Redis, leader: Any, stack: AsyncExitStack) -> dict[str, float]:  # noqa: ANN401 - asyncio's process
    """Kill the leader while an agent has nothing and another dispatcher stands by; return what that took."""
    second = await stack.enter_async_context(process(*DISPATCHER, url=url))
    await asyncio.sleep(3)  # it has started, and stands by
    leader.send_signal(signal.SIGKILL)
    began = perf_counter()
    await stack.enter_async_context(process("benchmarks.crowd", "1", url=url))
    cursor = await last_event(redis)
    told: Any = None
    while not told or not any(b'"ASSIGNED"' in fields[b"__data__"] for _, entries in told for _, fields in entries):
        told = await redis.xread({NAMES.events: cursor}, count=10, block=1000)
        cursor = told[-1][1][-1][0] if told else cursor
    first = perf_counter() - began
    handle = await bus.submit("bench.last")
    while await redis.exists(NAMES.task(handle.id)) == 0:  # noqa: ASYNC110 - nothing announces it sooner
        await asyncio.sleep(0.02)
    return {"first_assignment": round(first, 2), "all_loaded": round(perf_counter() - began, 2), "pid": second.pid}


async def audit(redis: Redis) -> dict[str, float]:
    """Audit the pool; return how long it took, and what it needed."""
    before, began = resident(), perf_counter()
    auditor = Auditor(redis, NAMES)
    found = await auditor.run()
    return {
        "seconds": round(perf_counter() - began, 1),
        "keys": auditor.looked_at,
        "findings": len(found),
        "mb": round((resident() - before) / MB, 1),
    }


async def measure(count: int, agents: int, drained: int, listpack: int | None) -> dict[str, Any]:
    """Run all of it on fresh processes."""
    result: dict[str, Any] = {"tasks": count, "listpack": listpack}
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            server = EmbeddedServer(data_dir=Path(folder), port=0, persistence="none")
            await stack.enter_async_context(server)
            redis = connect(server.url, name="benchmark")
            stack.push_async_callback(redis.aclose)
            if listpack is not None:
                await redis.config_set("hash-max-listpack-value", listpack)
            leader = await stack.enter_async_context(process(*DISPATCHER, url=server.url))
            bus = await stack.enter_async_context(Client(url=server.url))
            few: dict[str, Any] = {}
            await fill(bus, 1000)
            result["leader_mb"] = {"empty": round(resident(leader.pid) / MB)}
            for n in (1, agents):
                await fill(bus, drained)
                few[f"{n}_agents"] = await drain(server.url, redis, drained, n, leader.pid)
            result["drain"] = {"1000_waiting": few}
            await redis.delete(NAMES.events)
            before = await used(redis)
            result |= await fill(bus, count)
            await asyncio.sleep(1)
            events = int(await redis.memory_usage(NAMES.events, samples=0) or 0)
            one: Any = await redis.zrange(NAMES.pending, -1, -1)
            result["redis_bytes_per_task"] = {
                "all": round((await used(redis) - before) / count),
                "events": round(events / count),
                "record": await redis.memory_usage(NAMES.task(one[0].decode())),
            }
            result["leader_mb"]["full"] = round(resident(leader.pid) / MB)
            result["audit"] = await audit(redis)
            result["drain"][f"{count}_waiting"] = {
                f"{n}_agents": await drain(server.url, redis, drained, n, leader.pid) for n in (1, agents)
            }
            taken = await take_over(server.url, bus, redis, leader, stack)
            result["leader_mb"]["successor"] = round(resident(int(taken.pop("pid"))) / MB)
            result["take_over_s"] = taken
    return result


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Parse the arguments, measure, print; return what was printed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=positive, default=1_000_000, help="that wait")
    parser.add_argument("--agents", type=positive, default=200, help="beside one, where throughput is compared")
    parser.add_argument("--drained", type=positive, default=20_000, help="tasks completed in each measurement")
    parser.add_argument("--listpack", type=positive, help="set the server's hash-max-listpack-value, in bytes")
    given = parser.parse_args(argv)
    result = asyncio.run(measure(given.tasks, given.agents, given.drained, given.listpack))
    print(json.dumps(result))
    return result


if __name__ == "__main__":
    main()
