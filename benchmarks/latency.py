"""How long a task takes that somebody waits for.

    python -m benchmarks.latency [--seconds 5] [--tasks 10000]

Starts a server, a dispatcher and an agent of 100 slots as processes of their own, and prints one JSON line, in ms:

- ``result``: p50 and p99 from the submission to the result in the submitter's hands, at 200 tasks a second;
- ``start``: the same to the moment in which the agent begins;
- ``urgent``: 50 urgent tasks are submitted while 5,000 others wait: until the last of the 50 has begun;
- ``half_load``: p50 and p99 to the result at half the rate at which `--tasks` waiting tasks were drained just before;
  ``half_load_rate`` is that rate, in tasks a second.
"""

import argparse
import json
from collections.abc import Iterator
from time import monotonic
from typing import Any

from benchmarks.stage import Stage, paced, run, spread
from benchmarks.throughput import PAYLOAD, accepted, positive
from bus import TaskCreate, TaskPriority

RATE = 200
WAITING, BEGUN, URGENT = 5500, 500, 50


def payload(number: int) -> dict[str, Any]:
    """Return 200 bytes of JSON."""
    return {"n": number, "pad": PAYLOAD}


def _tasks(numbers: list[int], priority: TaskPriority = TaskPriority.MEDIUM) -> Iterator[TaskCreate]:
    return (TaskCreate(capability="bench.noop", payload=payload(n), priority=priority) for n in numbers)


async def steady(stage: Stage, rate: float, seconds: float) -> tuple[list[float], list[float]]:
    """Submit at a rate, and wait for each result; return the seconds to each result and to each start."""
    numbers = stage.numbers(max(100, round(rate * seconds)))
    results, starts = list[float](), list[float]()

    async def one(turn: int) -> None:
        at = monotonic()
        handle = await stage.bus.submit("bench.noop", payload(numbers[turn]))
        await handle.result(60)
        results.append(monotonic() - at)
        starts.append(stage.watch.began(numbers[turn]) - at)

    await paced(rate, len(numbers), one)
    return results, starts


async def drain(stage: Stage, count: int) -> float:
    """Let an agent end so many waiting tasks; return how many a second. The agent stays."""
    numbers = stage.numbers(count)
    handles = await stage.bus.submit_many(_tasks(numbers))
    await stage.agent()
    last = await stage.began(numbers)
    await handles[max(range(count), key=lambda i: stage.watch.began(numbers[i]))].result(60)
    return count / (last - min(map(stage.watch.began, numbers)))


async def urgent() -> float:
    """Return how many ms urgent tasks take that are submitted behind others."""
    async with Stage() as stage:
        await stage.dispatcher()
        waiting, urgent = stage.numbers(WAITING), stage.numbers(URGENT)
        await stage.bus.submit_many(_tasks(waiting))
        await accepted(stage.bus, WAITING)
        await stage.agent()
        await stage.began(waiting[:BEGUN])
        at = monotonic()
        await stage.bus.submit_many(_tasks(urgent, TaskPriority.URGENT))
        return round((await stage.began(urgent) - at) * 1000, 1)


async def measure(seconds: float = 5.0, count: int = 10_000) -> dict[str, Any]:
    """Take all figures."""
    async with Stage() as stage:
        await stage.dispatcher()
        rate = await drain(stage, count) / 2
        await steady(stage, RATE, 1.0)
        results, starts = await steady(stage, RATE, seconds)
        loaded, _ = await steady(stage, rate, seconds)
    return {
        "result": spread(results),
        "start": spread(starts),
        "urgent": await urgent(),
        "half_load": spread(loaded),
        "half_load_rate": round(rate),
    }


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each steady rate")
    parser.add_argument("--tasks", type=positive, default=10_000, help="that are drained to know the rate")
    given = parser.parse_args(argv)
    found = run(measure(given.seconds, given.tasks))
    print(json.dumps(found))
    return found


if __name__ == "__main__":
    main()
