"""docket (pydocket): streams and cloudpickle; pipelines of submissions; no priorities."""

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

import uvloop
from docket import Docket, Execution, Worker

from benchmarks.compare.peer import HELD_S, SLOTS, URL, mark, payload

NAME = "benchmark"
WHERE = f"{URL}?max_connections={10 * SLOTS}"
"""redis-py's limit of 100 connections is too low for 100 tasks at once."""


async def noop(task: dict[str, Any]) -> dict[str, Any]:
    """Do nothing."""
    mark(task["n"])
    return {"n": task["n"]}


async def held(task: dict[str, Any]) -> None:
    """Do nothing for long."""
    mark(task["n"])
    await asyncio.sleep(HELD_S)


tasks = [noop, held]


class Pydocket:
    """See `Peer`."""

    settings = f"uvloop, hiredis, concurrency={SLOTS}, max_connections={10 * SLOTS}"
    bulk = True
    priorities = False
    blocking = False
    lease = "redelivery_timeout, 300 s by default"
    _docket: Docket

    def services(self) -> list[list[str]]:
        """Return nothing."""
        return []

    def worker(self) -> list[str]:
        """Return this module: docket's own command runs without uvloop."""
        return [sys.executable, "-m", __name__]

    async def open(self) -> None:
        """Connect."""
        self._docket = Docket(name=NAME, url=WHERE)
        await self._docket.__aenter__()
        for task in tasks:
            self._docket.register(task)

    async def close(self) -> None:
        """Disconnect."""
        await self._docket.__aexit__(None, None, None)

    async def submit(self, number: int) -> Execution:
        """Submit one."""
        return await self._docket.add(noop)(payload(number))

    async def submit_many(self, numbers: Sequence[int]) -> list[Any]:
        """Submit many."""
        call = self._docket.call
        return list(await self._docket.add_many(call(noop)(payload(n)) for n in numbers))

    async def submit_urgent(self, numbers: Sequence[int]) -> None:
        """Be never called."""
        raise NotImplementedError

    async def submit_held(self, number: int) -> None:
        """Submit a long one."""
        await self._docket.add(held)(payload(number))

    async def result(self, handle: Execution) -> None:
        """Wait for a result."""
        await handle.get_result()


peer = Pydocket()

if __name__ == "__main__":
    collection = "benchmarks.compare.adapters.docket:tasks"
    uvloop.run(Worker.run(NAME, url=WHERE, concurrency=SLOTS, tasks=[collection]))
