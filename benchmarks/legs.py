"""What each leg of a task's way costs the process that walks it: of the submitter's, and of the agent's.

    python -m benchmarks.legs [--times 2000]

Starts a server, and plays the leader itself, in a thread of its own with a connection of its own. Prints one JSON line.
For each leg what one costs, all else at rest:

- ``cpu_us``: CPU of the process' event loop, which is the one that agents and dispatchers have, in the least
  disturbed tenth of the time;
- ``passes``, ``calls``, ``timers``, ``tasks``: of the event loop, its passes, the callbacks that it ran, the timers and
  the tasks that were made. They are counted in asyncio's own loop, and do not depend on how quick the machine is;
- ``p50_us``: time, where it says something: of ``assigned`` from when the leader writes the assignment to the handler's
  first line, of ``reported`` from there to the report in the leader's hands.

The legs: ``ping`` (one command, the floor), ``submit`` (a task, to its receipt), ``result`` (from its outcome in the
stream of replies to the end of `result()`), ``agent`` (from an assignment to the report of its end).
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final

from agent_runtime import Agent, capability
from agent_runtime.settings import AgentSettings
from agent_runtime.worker import Worker
from benchmarks.throughput import NAMES, PAYLOAD, positive
from bus import Client
from bus.connection import connect_blocking
from bus.embedded import EmbeddedServer
from bus.ids import DEFAULT_POOL, new_task_id
from bus.long_process import new_loop
from bus.messages import Register, Registered
from bus.names import DATA_FIELD

WARM: Final = 100
BLOCK: Final = 20
_FIELD: Final = DATA_FIELD.encode()

Costs = dict[str, dict[str, float]]


class CountingLoop(asyncio.SelectorEventLoop):
    """asyncio's event loop, and how much it has done."""

    def __init__(self) -> None:
        self.done: Counter[str] = Counter()
        super().__init__()
        self.set_task_factory(self._new_task)  # type: ignore[arg-type]

    def _run_once(self) -> None:
        self.done["passes"] += 1
        super()._run_once()  # type: ignore[misc] # what asyncio's loops are made of

    def call_soon(self, *args: Any, **options: Any) -> asyncio.Handle:  # type: ignore[override]
        """Count it, and do it."""
        self.done["calls"] += 1
        return super().call_soon(*args, **options)

    def call_at(self, *args: Any, **options: Any) -> asyncio.TimerHandle:  # type: ignore[override]
        """Count it, and do it."""
        self.done["timers"] += 1
        return super().call_at(*args, **options)

    def _new_task(
        self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **options: Any
    ) -> asyncio.Task[Any]:
        self.done["tasks"] += 1
        return asyncio.Task(work, loop=loop, **options)


class Echo(Agent):
    """Notes when it was called."""

    agent_id = "legs"
    slots = 100
    began = 0.0

    @capability("bench.noop")
    async def noop(self, task: dict[str, Any]) -> dict[str, Any]:
        """Do nothing."""
        Echo.began = time.perf_counter()
        return {"n": task["n"]}


class Leader:
    """What the leader does for one agent and one client, by a blocking connection."""

    def __init__(self, url: str) -> None:
        self._redis = connect_blocking(url, name="benchmark", timeout=5.0)
        self._cursor: Any = "0-0"
        self._session = ""
        self._given = 0
        self.waits: dict[str, list[float]] = {"assigned": [], "reported": []}

    def welcome(self) -> None:
        """Acknowledge the agent's registration."""
        reply: Any = self._redis.xread({NAMES.registrations: "0-0"}, block=4000)
        signed = Register.model_validate_json(reply[0][1][0][1][_FIELD])
        self._session = signed.session
        welcome = Registered(session=signed.session, revision=signed.revision)
        self._redis.xadd(NAMES.control("legs"), {DATA_FIELD: welcome.model_dump_json()})

    def assign(self, count: int) -> None:
        """Give the agent tasks, one after the other, and take its reports."""
        for _ in range(count):
            self._given += 1
            task_id = new_task_id(DEFAULT_POOL)
            body = (
                f'{{"v":1,"task_id":"{task_id}","attempt":1,"session":"{self._session}","score":{self._given},'
                f'"assigned_at":{self._given},"task":{{"v":1,"id":"{task_id}","capability":"bench.noop",'
                f'"payload":{{"n":{self._given},"pad":"{PAYLOAD}"}}}}}}'
            )
            at, done = time.perf_counter(), 0
            self._redis.xadd(NAMES.assignments("legs"), {DATA_FIELD: body})
            while not done:
                reply: Any = self._redis.xread({NAMES.results: self._cursor}, block=4000)
                for self._cursor, fields in reply[0][1]:
                    done += fields[_FIELD].count(b'"status":"COMPLETED"')
            self.waits["assigned"].append(Echo.began - at)
            self.waits["reported"].append(time.perf_counter() - Echo.began)

    def tell(self, client_id: str, task_id: str) -> None:
        """Tell a client how a task has ended."""
        outcome = {"task_id": task_id, "status": "COMPLETED", "attempt": 1, "agent_id": "a1", "output": {"n": 1}}
        self._redis.xadd(NAMES.replies(client_id), {DATA_FIELD: json.dumps({"v": 1, "outcomes": [outcome]})})

    def close(self) -> None:
        """Close the connection."""
        self._redis.close()


async def _each(times: int, work: Callable[[int], Awaitable[object]]) -> dict[str, float]:
    """Return what one of `times` costs this thread, which has the event loop: of its quietest moments."""
    await work(WARM)
    loop = asyncio.get_running_loop()
    counted = loop.done if isinstance(loop, CountingLoop) else Counter[str]()
    counted.clear()
    took = []
    for _ in range(times // BLOCK):
        cpu = time.thread_time()
        await work(BLOCK)
        took.append((time.thread_time() - cpu) / BLOCK)
    if counted:
        return {name: round(counted[name] / times, 2) for name in ("passes", "calls", "timers", "tasks")}
    return {"cpu_us": round(quantiles(took, n=10)[0] * 1e6, 1)}


async def _client(url: str, leader: Leader, times: int) -> Costs:
    async with Client(url=url) as bus:
        client_id = bus._link.client_id  # noqa: SLF001 - the client's own name, which leaders learn from tasks
        redis = bus._link.redis  # noqa: SLF001 - the connections that it submits over

        async def ping(count: int) -> None:
            for _ in range(count):
                await redis.ping()

        async def submit(count: int) -> None:
            for n in range(count):
                await bus.submit("bench.noop", {"n": n, "pad": PAYLOAD})

        handles = [await bus.submit("bench.noop", {"n": n}) for n in range(times + WARM)]

        async def result(count: int) -> None:
            for _ in range(count):
                handle = handles.pop()
                waiting = asyncio.ensure_future(handle.result())
                await asyncio.to_thread(leader.tell, client_id, handle.id)
                await waiting

        async def thread(count: int) -> None:
            for _ in range(count):
                waiting = asyncio.ensure_future(asyncio.sleep(0))
                await asyncio.to_thread(int)
                await waiting

        legs = {"ping": ping, "submit": submit, "thread": thread, "result": result}
        found = {name: await _each(times, leg) for name, leg in legs.items()}
    around = found.pop("thread")
    found["result"] = {name: round(cost - around[name], 2) for name, cost in found["result"].items()}
    return found


async def _agent(url: str, leader: Leader, times: int) -> Costs:
    stop = asyncio.Event()
    running = asyncio.create_task(Worker(Echo(), AgentSettings(redis_url=url)).run(stop))
    await asyncio.to_thread(leader.welcome)

    async def assign(count: int) -> None:
        await asyncio.to_thread(leader.assign, count)

    found = {"agent": await _each(times, assign)}
    stop.set()
    await running
    return found


async def measure(times: int) -> tuple[Costs, dict[str, list[float]]]:
    """Walk all legs on a fresh server."""
    with tempfile.TemporaryDirectory() as folder:
        async with EmbeddedServer(data_dir=Path(folder), port=0, persistence="none") as server:
            leader = Leader(server.url)
            found = await _client(server.url, leader, times) | await _agent(server.url, leader, times)
            leader.close()
    return found, leader.waits


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=positive, default=2_000)
    times = parser.parse_args().times
    with asyncio.Runner(loop_factory=CountingLoop) as runner:
        counted, _ = runner.run(measure(times))
    with asyncio.Runner(loop_factory=new_loop) as runner:
        timed, waits = runner.run(measure(times))
    found = {leg: counted[leg] | timed[leg] for leg in counted}
    found |= {leg: {"p50_us": round(median(took[WARM:]) * 1e6)} for leg, took in waits.items()}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
