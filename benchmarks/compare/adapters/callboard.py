"""Callboard itself: a dispatcher beside the worker, which is an agent of a hundred slots."""

import sys
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.compare.peer import URL, payload
from bus import Client, TaskCreate, TaskHandle, TaskPriority

COMMAND = (sys.executable, "-m", "callboard")


def _tasks(numbers: Sequence[int], priority: TaskPriority = TaskPriority.MEDIUM) -> Iterator[TaskCreate]:
    return (TaskCreate(capability="bench.noop", payload=payload(n), priority=priority) for n in numbers)


class Callboard:
    """See `Peer`."""

    settings = "as it comes (uvloop, hiredis); one dispatcher, an agent of 100 slots"
    bulk = True
    priorities = True
    blocking = False
    lease = "the agent's lease, 5 s by default"
    _client: Client

    def services(self) -> list[list[str]]:
        """Return the dispatcher."""
        return [[*COMMAND, "dispatcher", "--redis-url", URL, "--metrics-port", "0"]]

    def worker(self) -> list[str]:
        """Return an agent."""
        return [*COMMAND, "agent", "benchmarks.agents:Noop", "--redis-url", URL]

    async def open(self) -> None:
        """Connect."""
        self._client = await Client(URL).__aenter__()

    async def close(self) -> None:
        """Disconnect."""
        await self._client.close()

    async def submit(self, number: int) -> TaskHandle[Any]:
        """Submit one."""
        return await self._client.submit("bench.noop", payload(number))

    async def submit_many(self, numbers: Sequence[int]) -> list[Any]:
        """Submit many."""
        return list(await self._client.submit_many(_tasks(numbers)))

    async def submit_urgent(self, numbers: Sequence[int]) -> None:
        """Submit urgent ones."""
        await self._client.submit_many(_tasks(numbers, TaskPriority.URGENT))

    async def submit_held(self, number: int) -> None:
        """Submit a long one."""
        await self._client.submit("bench.held", payload(number))

    async def result(self, handle: TaskHandle[Any]) -> None:
        """Wait for a result."""
        await handle.result(60)


peer = Callboard()
