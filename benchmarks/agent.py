"""What one no-op task costs the process of an agent: everything from its assignment to the report of its result.

    python -m benchmarks.agent [--tasks 40000]

Starts a server and an agent of 100 slots, and is its leader: keeps 200 tasks in the agent's hands, and looks at its
reports no more closely than counting takes. Prints one JSON line: microseconds of CPU of the agent per task, of tasks
that come by the hundred (`loaded_us`), and of such that come one by one when nothing else runs (`alone_us`).
"""

import argparse
import asyncio
import json
import tempfile
from pathlib import Path
from typing import Any, Final

from benchmarks.throughput import NAMES, PAYLOAD, positive, process
from bus.connection import Redis, connect
from bus.embedded import EmbeddedServer
from bus.ids import DEFAULT_POOL, new_task_id
from bus.messages import Register, Registered
from bus.names import DATA_FIELD

IN_HAND: Final = 200
PASS: Final = 100
_FIELD: Final = DATA_FIELD.encode()


class Leader:
    """Gives one agent tasks, and takes its results."""

    def __init__(self, redis: Redis, signed: Register) -> None:
        self._redis = redis
        self._signed = signed
        self._cursor: Any = "0-0"
        self._score = 0

    async def drain(self, count: int, in_hand: int) -> None:
        """Have `count` tasks done, `in_hand` of them at a time."""
        given = done = 0
        while done < count:
            if given - done <= in_hand // 2 and given < count:
                more = min(in_hand - (given - done), PASS, count - given)
                await self._give(more)
                given += more
                continue
            done += await self._take()

    async def _give(self, count: int) -> None:
        async with self._redis.pipeline(transaction=False) as pipe:
            for _ in range(count):
                self._score += 1
                task_id = new_task_id(DEFAULT_POOL)
                body = (
                    f'{{"v":1,"task_id":"{task_id}","attempt":1,"session":"{self._signed.session}",'
                    f'"score":{self._score},"assigned_at":{self._score},"task":{{"v":1,"id":"{task_id}",'
                    f'"reply_to":"{self._signed.session}","capability":"bench.noop",'
                    f'"payload":{{"n":{self._score},"pad":"{PAYLOAD}"}}}}}}'
                )
                pipe.xadd(NAMES.assignments(self._signed.agent_id), {DATA_FIELD: body})
            await pipe.execute()

    async def _take(self) -> int:
        reply: Any = await self._redis.xread({NAMES.results: self._cursor}, block=1000)
        done = 0
        for _, entries in reply or ():
            for self._cursor, fields in entries:
                done += fields[_FIELD].count(b'"status":"COMPLETED"')
        return done


async def signed_in(redis: Redis) -> Register:
    """Wait for an agent's registration, and acknowledge it."""
    reply: Any = await redis.xread({NAMES.registrations: "0-0"}, block=4000)
    signed = Register.model_validate_json(reply[0][1][0][1][_FIELD])
    welcome = Registered(session=signed.session, revision=signed.revision)
    await redis.xadd(NAMES.control(signed.agent_id), {DATA_FIELD: welcome.model_dump_json()})
    return signed


def only_child(pid: int) -> int:
    """Return the process that a supervisor keeps."""
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def used_ns(pid: int) -> int:
    """Return how long the threads of a process have run."""
    return sum(int(thread.read_text().split()[0]) for thread in Path(f"/proc/{pid}/task").glob("*/schedstat"))


def each(nanoseconds: int, count: int) -> float:
    """Return the microseconds of one of `count`."""
    return round(nanoseconds / count / 1000, 1)


async def measure(count: int) -> dict[str, Any]:
    """Run both measurements on a fresh agent."""
    with tempfile.TemporaryDirectory() as folder:
        async with (
            EmbeddedServer(data_dir=Path(folder), port=0, persistence="none") as server,
            process("callboard", "agent", "benchmarks.agents:Noop", url=server.url) as supervisor,
        ):
            redis = connect(server.url, name="benchmark")
            leader = Leader(redis, await signed_in(redis))
            await leader.drain(2_000, IN_HAND)
            pid = only_child(supervisor.pid)
            few = max(1, count // 10)
            begun = used_ns(pid)
            await leader.drain(count, IN_HAND)
            loaded = used_ns(pid)
            await leader.drain(few, 1)
            alone = used_ns(pid)
            await redis.aclose()
    return {"tasks": count, "loaded_us": each(loaded - begun, count), "alone_us": each(alone - loaded, few)}


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=positive, default=40_000)
    print(json.dumps(asyncio.run(measure(parser.parse_args().tasks))))


if __name__ == "__main__":
    main()
