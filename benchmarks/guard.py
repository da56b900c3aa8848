"""What one task costs, counted and not timed, beside figures that were recorded: for CI, where clocks say nothing.

    python -m benchmarks.guard            count, compare, exit with 1 if a cost has changed
    python -m benchmarks.guard --record   count, and write the figures to benchmarks/guard.json
    python -m benchmarks.guard --record core    the same of the core alone, for another version of Python

Per task it counts

- calls of this repository's Python functions in the scheduling core (`benchmarks.core_calls`), recorded for each minor
  version of Python, since they compile calls differently;
- of a task that is submitted and awaited alone: requests and bytes that each process sends to the server, and commands
  that the server executes, those inside of scripts too;
- of 2,000 tasks that are submitted at once, with no agent: bytes that each process sends, and commands;
- of 2,000 tasks that are submitted at once and run: bytes that each process sends. How many requests and commands that
  takes depends on the machine: on how many tasks share a request, and whether a start shares a report with its end.

Commands that do not come with every other task at least, such as heartbeats, belong to no task and are left out. A cost
fails that has grown by more than a tenth, and one that has fallen by more than a quarter: then record anew, or what was
won is lost again unseen. What fails is counted twice more, since chance has a hand in what is read together.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Coroutine, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final, Self

from benchmarks.counting_proxy import CountingProxy
from benchmarks.stage import run
from benchmarks.throughput import accepted, process, tasks
from bus import Client, TaskHandle
from bus.connection import Redis, connect
from bus.embedded import EmbeddedServer

ROOT: Final = Path(__file__).parents[1]
RECORDED: Final = Path(__file__).with_name("guard.json")
RECORD: Final = "python -m benchmarks.guard --record"
GROWN, FALLEN = 1.10, 0.75
ALONE, TOGETHER = 300, 2000
OFTEN: Final = 0.5
TRIES: Final = 3
LIMIT_S: Final = 60.0

Costs = dict[str, float]


def version() -> str:
    """Return the minor version of Python."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def core() -> Costs:
    """Count calls in the scheduling core, in a process of its own that nothing else has imported into."""
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.core_calls"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        check=True,
    )
    counted: Costs = json.loads(ran.stdout)
    return counted


def _often(counted: Mapping[str, int], count: int) -> float:
    """Return how many there are per task, without what does not come with every other task."""
    return round(sum(number for number in counted.values() if number >= OFTEN * count) / count, 2)


class Flow:
    """A server, one dispatcher and one agent as processes of their own, and a client, each by a proxy that counts."""

    async def __aenter__(self) -> Self:
        self._stack = AsyncExitStack()
        enter = self._stack.enter_async_context
        folder = self._stack.enter_context(tempfile.TemporaryDirectory())
        server = await enter(EmbeddedServer(data_dir=Path(folder), port=0, persistence="none"))
        self._redis: Redis = connect(server.url, name="guard")
        self._stack.push_async_callback(self._redis.aclose)
        self._roles = {role: await enter(CountingProxy(server.url)) for role in ("client", "dispatcher", "agent")}
        await enter(process("callboard", "dispatcher", url=self._roles["dispatcher"].url))
        self._bus = await enter(Client(self._roles["client"].url))
        self._observer = await enter(Client(server.url))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def costs(self) -> Costs:
        """Count everything."""
        handles: list[TaskHandle[Any]] = []
        found = await self._counted("accepted", TOGETHER, self._accepted(TOGETHER, handles))
        found.pop("agent bytes, accepted")
        await self._stack.enter_async_context(
            process("callboard", "agent", "benchmarks.agents:Noop", url=self._roles["agent"].url)
        )
        for handle in handles:
            await handle.result(LIMIT_S)
        found |= await self._counted("alone", ALONE, self._alone(ALONE))
        found |= await self._counted("together", TOGETHER, self._together(TOGETHER))
        found.pop("commands, together")
        return found

    async def _counted(self, how: str, count: int, work: Coroutine[Any, Any, None]) -> Costs:
        before = await self._executed()
        for role in self._roles.values():
            role.requests.clear()
            role.sent.clear()
        await work
        found = {f"commands, {how}": _often(await self._executed() - before, count)}
        for name, role in self._roles.items():
            if how == "alone":
                often = {command for command, number in role.requests.items() if number >= OFTEN * count}
                found[f"{name} requests, {how}"] = _often(role.requests, count)
                found[f"{name} bytes, {how}"] = round(sum(role.sent[command] for command in often) / count)
            else:
                found[f"{name} bytes, {how}"] = round(role.sent.total() / count)
        return found

    async def _executed(self) -> Counter[str]:
        told: dict[str, Any] = await self._redis.info("commandstats")
        return Counter({name: stats["calls"] for name, stats in told.items()})

    async def _alone(self, count: int) -> None:
        for task in tasks(count):
            await (await self._bus.submit("bench.noop", task.payload)).result(LIMIT_S)

    async def _accepted(self, count: int, handles: list[TaskHandle[Any]]) -> None:
        handles += await self._bus.submit_many(tasks(count))
        await accepted(self._observer, count)

    async def _together(self, count: int) -> None:
        for handle in await self._bus.submit_many(tasks(count)):
            await handle.result(LIMIT_S)


async def flow() -> Costs:
    """Count what a task costs the whole system."""
    async with Flow() as counting:
        return await counting.costs()


def difference(cost: float, recorded: float | None) -> str | None:
    """Return what is wrong with a cost; None if nothing is."""
    if recorded is None:
        return f"is not recorded: {RECORD}"
    if cost > recorded * GROWN:
        return f"was {recorded:g} and is {cost:g}: more than a tenth more. If that must be: {RECORD}"
    if cost < recorded * FALLEN:
        return f"was {recorded:g} and is only {cost:g}. So that it stays so: {RECORD}"
    return None


def compare(costs: Costs, recorded: Costs) -> dict[str, str]:
    """Return what is wrong, by the name of the cost."""
    wrong = {name: difference(cost, recorded.get(name)) for name, cost in costs.items()}
    wrong |= dict.fromkeys(recorded.keys() - costs.keys(), f"is not counted any more: {RECORD}")
    return {name: problem for name, problem in wrong.items() if problem}


def read() -> dict[str, Costs]:
    """Return what is recorded: of the whole as `flow`, and of the core by versions of Python."""
    recorded: dict[str, Costs] = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    return recorded


def check_flow(recorded: Costs) -> dict[str, str]:
    """Count until nothing is wrong, three times at most; return what is wrong every time."""
    wrong: dict[str, str] = {}
    for turn in range(TRIES):
        found = compare(run(flow()), recorded)
        wrong = found if turn == 0 else {name: found[name] for name in wrong.keys() & found.keys()}
        if not wrong:
            break
    return wrong


def record(what: str) -> None:
    """Count, and write down the most of three; what is recorded of other versions of Python stays."""
    found = read() | {version(): core()}
    if what == "all":
        counted = [run(flow()) for _ in range(TRIES)]
        found["flow"] = {name: max(costs[name] for costs in counted) for name in counted[0]}
    RECORDED.write_text(json.dumps(found, indent=2, sort_keys=True) + "\n")
    print(f"{RECORDED} is written")


def main() -> int:
    """Parse the arguments, count, compare or record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--record",
        nargs="?",
        choices=("all", "core"),
        const="all",
        help="write the figures down as what tasks cost from now on",
    )
    if what := parser.parse_args().record:
        record(what)
        return 0
    recorded = read()
    wrong = check_flow(recorded.get("flow", {})) | compare(core(), recorded.get(version(), {}))
    for name, problem in sorted(wrong.items()):
        print(f"{name} {problem}")
    if not wrong:
        print("what a task costs is as recorded")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
