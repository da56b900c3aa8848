"""How long work stands still when a process of the three kinds is killed (SIGKILL).

    python -m benchmarks.restart

Starts a server with its append-only file, two dispatchers and two agents as processes of their own, with the leases
that they have by default, and prints one JSON line, in seconds:

- ``agent_killed``: from the death of an agent until a task that it ran begins at another (its lease is 5 s);
- ``leader_killed``: from the death of the leading dispatcher until a task that is submitted then has its result
  (the leader's lease is 3 s; another dispatcher stands by);
- ``server_away``: from the death of the server until it answers again, with its data: nothing of Callboard's;
- ``server_back``: from then until a task that was submitted while it was away has its result.
"""

import argparse
import asyncio
import json
from time import monotonic
from typing import Any

from benchmarks.stage import Stage, run, until

STANDBY_S = 4.0
LIMIT_S = 60.0


async def result_after(stage: Stage) -> float:
    """Submit a task now; return when its result is there."""
    handle = await stage.bus.submit("bench.noop", {"n": stage.numbers(1)[0]})
    await handle.result(LIMIT_S)
    return monotonic()


async def agent_killed(stage: Stage) -> float:
    """Kill the agent that runs a task, beside one that stands by."""
    agent = await stage.agent()
    await stage.warm_up()
    held = stage.numbers(1)[0]
    await stage.bus.submit("bench.held", {"n": held})
    await stage.began([held])
    await stage.agent()
    await asyncio.sleep(STANDBY_S)  # it signs in
    agent.kill()
    at = monotonic()
    async with asyncio.timeout(LIMIT_S):
        await until(lambda: stage.watch.starts(held) > 1)
    return stage.watch.began(held) - at


async def measure() -> dict[str, float]:
    """Take all figures, one after the other."""
    async with Stage(persistence="everysec") as stage:
        leader = await stage.dispatcher()
        found = {"agent_killed": await agent_killed(stage)}

        await stage.dispatcher()
        await asyncio.sleep(STANDBY_S)  # it stands by
        leader.kill()
        at = monotonic()
        found["leader_killed"] = await result_after(stage) - at

        at = monotonic()
        await stage.kill_server()
        flowing = asyncio.create_task(result_after(stage))
        await asyncio.sleep(1)
        await stage.restart_server()
        back = monotonic()
        found |= {"server_away": back - at, "server_back": await flowing - back}
    return {name: round(seconds, 2) for name, seconds in found.items()}


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measure, print."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args(argv)
    found = run(measure())
    print(json.dumps(found))
    return found


if __name__ == "__main__":
    main()
