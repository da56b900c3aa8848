"""What a pool costs in which nothing happens.

    python -m benchmarks.idle [--agents 100] [--beating 5000] [--seconds 15]

Starts a server, a dispatcher and agents as processes of their own and prints one JSON line; shares are percent of one
core, of user and system time:

- ``agent``: one `callboard agent` process that has nothing to do: share, resident memory in MB, commands per second;
- ``dispatcher``: one with `--agents` idle agents (in one process, by the wire as real as any): the same;
- ``beating``: a dispatcher's share with `--beating` agents. Only their registrations and heartbeats exist, in the exact
  form of the wire, each agent's once a second; ``beats_per_s`` is how many were written.
"""

import argparse
import asyncio
import json
import tempfile
from collections import Counter
from contextlib import AsyncExitStack
from itertools import cycle
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.scale import DISPATCHER, MB, resident
from benchmarks.throughput import NAMES, cpu_of, positive, process
from bus import Client
from bus.connection import Redis, connect
from bus.embedded import EmbeddedServer
from bus.messages import CapabilitySpec, Heartbeat, Register
from bus.names import DATA_FIELD

TICK_S = 0.02
WARM_S = 3.0


def family(pid: int) -> list[int]:
    """Return a process and all that it has started."""
    pids = [pid]
    for at in pids:
        pids += [int(p) for p in Path(f"/proc/{at}/task/{at}/children").read_text().split()]
    return pids


async def share(pid: int, seconds: float) -> float:
    """Return what a process takes of a core, in percent."""
    before, began = cpu_of(pid), perf_counter()
    await asyncio.sleep(seconds)
    return round(100 * (cpu_of(pid) - before) / (perf_counter() - began), 2)


async def commands(redis: Redis, seconds: float) -> Counter[str]:
    """Return how many commands per second each kind of client sends, by its name up to the process' own part."""
    names = {client["addr"]: client["name"] for client in await redis.client_list()}
    sent: Counter[str] = Counter()
    async with redis.monitor() as monitor, asyncio.timeout(seconds + 5):
        until = perf_counter() + seconds
        async for one in monitor.listen():
            if perf_counter() > until:
                break
            if one["client_type"] != "lua":
                who = names.get(f"{one['client_address']}:{one['client_port']}") or "callboard"
                sent["-".join(who.split("-")[:2])] += 1
    return Counter({who: round(n / seconds) for who, n in sent.items()})


class Beating:
    """Agents of which there is nothing but their heartbeats."""

    def __init__(self, redis: Redis, count: int) -> None:
        self._redis = redis
        self._ids = [f"beating-{n:05}" for n in range(count)]
        self.beats = 0

    async def sign_in(self) -> None:
        """Sign all in, and return when the leader has acknowledged the last."""
        for start in range(0, len(self._ids), 100):
            async with self._redis.pipeline(transaction=False) as pipe:
                for agent_id in self._ids[start : start + 100]:
                    message = Register(agent_id=agent_id, session="s", capabilities=(CapabilitySpec(name="b.noop"),))
                    pipe.xadd(NAMES.registrations, {DATA_FIELD: message.model_dump_json()})
                await pipe.execute()
        await self._redis.xread({NAMES.control(self._ids[-1]): "0-0"}, block=4000, count=1)

    async def beat(self) -> None:
        """Beat for each of them once a second, spread over it, until cancelled."""
        at, began = cycle(self._ids), perf_counter()
        while True:
            due = int((perf_counter() - began) * len(self._ids)) - self.beats
            async with self._redis.pipeline(transaction=False) as pipe:
                for _ in range(due):
                    self.beats += 1
                    beat = Heartbeat(agent_id=next(at), session="s", seq=self.beats, obeys=0, updated=0)
                    pipe.xadd(NAMES.heartbeats, {DATA_FIELD: beat.model_dump_json()}, maxlen=100_000, approximate=True)
                await asyncio.gather(pipe.execute(), asyncio.sleep(TICK_S))


async def measure(agents: int, beating: int, seconds: float) -> dict[str, Any]:
    """Run all of it."""
    result: dict[str, Any] = {"agents": agents, "beating_agents": beating}
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(EmbeddedServer(data_dir=Path(folder), port=0, persistence="none"))
            redis = connect(server.url, name="benchmark")
            stack.push_async_callback(redis.aclose)
            dispatcher = await stack.enter_async_context(process(*DISPATCHER, url=server.url))
            bus = await stack.enter_async_context(Client(url=server.url))
            agent = ("callboard", "agent", "benchmarks.agents:Noop", "--metrics-port", "0")
            async with process(*agent, url=server.url) as alone:
                await _signed_in(bus, 1)
                parent, *children = family(alone.pid)
                result["agent"] = {
                    "share": await share(alone.pid, seconds),
                    "mb": [round(resident(pid) / MB, 1) for pid in (parent, *children)],
                    "commands_per_s": (await commands(redis, 5))["callboard-agent"],
                }
            async with process("benchmarks.crowd", str(agents), url=server.url):
                await _signed_in(bus, agents)
                result["dispatcher"] = {
                    "share": await share(dispatcher.pid, seconds),
                    "mb": round(resident(dispatcher.pid) / MB, 1),
                    "commands_per_s": (sent := await commands(redis, 5))["callboard-dispatcher"] + sent["callboard"],
                }
            result["beating"] = await _beating(Beating(redis, beating), dispatcher.pid, seconds)
    return result


async def _beating(crowd: Beating, pid: int, seconds: float) -> dict[str, float]:
    await crowd.sign_in()
    beats = asyncio.create_task(crowd.beat())
    await asyncio.sleep(WARM_S)
    before, began = crowd.beats, perf_counter()
    found = {"share": await share(pid, seconds), "mb": round(resident(pid) / MB, 1)}
    found["beats_per_s"] = round((crowd.beats - before) / (perf_counter() - began))
    beats.cancel()
    return found


async def _signed_in(bus: Client, agents: int) -> None:
    """Return when so many agents are idle, and have been for a moment."""
    while sum(one.status == "IDLE" for one in await bus.agents()) < agents:  # noqa: ASYNC110 - a ledger, not an event
        await asyncio.sleep(0.2)
    await asyncio.sleep(WARM_S)


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Parse the arguments, measure, print; return what was printed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=positive, default=100, help="that are idle")
    parser.add_argument("--beating", type=positive, default=5_000, help="of which only heartbeats exist")
    parser.add_argument("--seconds", type=float, default=15.0, help="for which each is looked at")
    given = parser.parse_args(argv)
    result = asyncio.run(measure(given.agents, given.beating, given.seconds))
    print(json.dumps(result))
    return result


if __name__ == "__main__":
    main()
