"""The children of one attempt: what it submits, waits for, and how it gives up its slots meanwhile.

`Nursery` is the seam to the bus: `BusNursery` submits children there, `agent_runtime.testing` has one of scripted
answers. Everything of the bus that only parents need is imported with the first child, for most agents never have one.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from bus.ids import TaskId
from bus.states import TaskPriority

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping
    from concurrent.futures import Future

    from agent_runtime.inbox import Attempt, AttemptKey
    from bus.family import FamilyClient, Parent
    from bus.handle import TaskHandle
    from bus.ids import Pool
    from bus.records import TaskCreate

T = TypeVar("T")


class Nursery(Protocol):
    """Where children are submitted."""

    async def submit(
        self, parent: Parent, capability: object, payload: object, options: Mapping[str, Any]
    ) -> TaskHandle[Any]:
        """Submit one child, or find it."""

    async def submit_many(self, parent: Parent, tasks: Iterable[TaskCreate]) -> list[TaskHandle[Any]]:
        """Submit many children, or find them."""


class Room(Protocol):
    """The slots of an agent, as an attempt gives them up and takes them again."""

    def leave(self, key: AttemptKey) -> None:
        """Free the attempt's slots."""

    async def come_back(self, key: AttemptKey) -> None:
        """Wait until the attempt has its slots again."""

    def come_back_at_once(self, key: AttemptKey) -> None:
        """Give the attempt its slots again, free or not."""


class BusNursery:
    """Submits to the pool of the agent, through one client that all tasks of the agent share."""

    def __init__(self, url: str, pool: Pool) -> None:
        self._url = url
        self._pool = pool
        self._client: FamilyClient | None = None

    async def submit(
        self, parent: Parent, capability: object, payload: object, options: Mapping[str, Any]
    ) -> TaskHandle[Any]:
        """Submit one child, or find it. Raises as `Client.submit`."""
        return await self._open().submit_child(parent, capability, payload, options)

    async def submit_many(self, parent: Parent, tasks: Iterable[TaskCreate]) -> list[TaskHandle[Any]]:
        """Submit many children, or find them. Raises as `Client.submit_many`."""
        return await self._open().submit_children(parent, tasks)

    async def close(self) -> None:
        """Close the client, if there is one."""
        if self._client is not None:
            await self._client.close()

    def _open(self) -> FamilyClient:
        if self._client is None:
            from bus.family import FamilyClient  # noqa: PLC0415 - see the module's docstring

            self._client = FamilyClient(self._url, pool=self._pool)
        return self._client


class Children:
    """What one attempt has of a family. Used from the event loop, `from_thread` apart."""

    def __init__(self, attempt: Attempt, nursery: Nursery, room: Room, loop: asyncio.AbstractEventLoop) -> None:
        from bus.family import Parent  # noqa: PLC0415 - see the module's docstring

        task, task_id = attempt.task, TaskId(attempt.key[0])
        self._key = attempt.key
        self._nursery = nursery
        self._room = room
        self._loop = loop
        self._waits = 0
        self._calls: set[Future[Any]] = set()
        self._gone = False
        self.parent: Parent = Parent(
            id=task_id,
            attempt=attempt.key[1],
            depth=int(task.get("depth") or 0),
            trace=task.get("trace") or task_id,
            priority=TaskPriority(task.get("priority") or TaskPriority.MEDIUM),
            fairness_key=task.get("fairness_key"),
        )

    async def submit(self, capability: object, payload: object, options: Mapping[str, Any]) -> TaskHandle[Any]:
        """Submit one child, or find it."""
        return await self._nursery.submit(self.parent, capability, payload, options)

    async def submit_many(self, tasks: Iterable[TaskCreate]) -> list[TaskHandle[Any]]:
        """Submit many children, or find them."""
        return await self._nursery.submit_many(self.parent, tasks)

    async def call(
        self,
        capability: object,
        payload: object,
        options: Mapping[str, Any],
        *,
        release_slot: bool,
        timeout: float | None,
    ) -> Any:  # noqa: ANN401 - what the child returns
        """Submit one child, or find it, and wait for its result."""
        handle = await self.submit(capability, payload, options)
        if not release_slot:
            return await handle.result(timeout)
        async with self.without_slot():
            return await handle.result(timeout)

    @asynccontextmanager
    async def without_slot(self) -> AsyncIterator[None]:
        """Give up the attempt's slots while the block runs; they are back when the last such block is left."""
        self._waits += 1
        if self._waits == 1:
            self._room.leave(self._key)
        try:
            yield
        except asyncio.CancelledError:
            self._waits -= 1
            if not self._waits:
                self._room.come_back_at_once(self._key)
            raise
        except BaseException:
            await self._come_back()
            raise
        else:
            await self._come_back()

    async def _come_back(self) -> None:
        self._waits -= 1
        if not self._waits:
            await self._room.come_back(self._key)

    def from_thread(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` in the agent's event loop and return its result; for plain `def` capabilities."""
        try:
            in_loop = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            in_loop = False
        if in_loop:
            work.close()
            raise RuntimeError("ctx.wait is for plain `def` capabilities: in an `async def` write `await` instead")
        call = asyncio.run_coroutine_threadsafe(work, self._loop)
        self._calls.add(call)
        if self._gone:
            call.cancel()
        try:
            return call.result()
        finally:
            self._calls.discard(call)

    def let_go(self) -> None:
        """Stop what threads wait for: the attempt is over."""
        self._gone = True
        for call in list(self._calls):
            call.cancel()
