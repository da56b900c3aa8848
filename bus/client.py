"""The client: publishes tasks, awaits results, shows and steers what is on the bus.

Meets the leader only on streams; reads the ledger directly. One client serves any number of coroutines of one event
loop.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import aclosing, suppress
from itertools import islice
from types import TracebackType
from typing import Any, Final, Self, TypedDict, TypeVar, Unpack, overload

from pydantic import JsonValue, TypeAdapter, ValidationError

from bus.agent_operations import AgentOperations
from bus.cancelling import DONE_S, CancelReport, cancel_and_wait
from bus.connection import CONNECTION_ERRORS
from bus.dead_letters import DeadLetters
from bus.durability import Durability, promised, proven
from bus.errors import BusUnavailableError, QueueFullError, SubmissionError, first_problem
from bus.handle import TaskHandle, as_completed
from bus.ids import DEFAULT_POOL, TaskId
from bus.limits import Limit
from bus.link import Link
from bus.names import PoolNames
from bus.records import TaskCreate
from bus.requirements import AnyOf, Condition, Preference
from bus.retries import RetryPolicy
from bus.schedule_operations import Schedules
from bus.states import TaskPriority
from bus.submission import TASKS_PER_CALL, submission_of
from bus.submission_batch import Batch, Patience
from bus.submitter import Submitter
from bus.task_operations import TaskOperations
from bus.waiter import Waiter
from bus.waiting import Outcomes

T = TypeVar("T")


class TaskOptions(TypedDict, total=False):
    """Everything else that a task may be given; `bus.TaskCreate` tells what each means."""

    version: str | None
    priority: TaskPriority | str
    requires: Sequence[Condition | AnyOf | str]
    prefers: Sequence[Preference | str]
    run_timeout: float | None
    queue_timeout: float | None
    progress_timeout: float | None
    max_attempts: int
    retry: RetryPolicy | Mapping[str, object] | None
    delay: float
    key: str | None
    fairness_key: str | None
    sticky: str | None
    fail_fast: bool
    estimated_duration: float | None
    slots: int
    resources: Mapping[str, float]
    limits: Sequence[Limit | Mapping[str, object]]
    metadata: Mapping[str, JsonValue]
    tags: Sequence[str]
    trace: str | None
    pool: str | None


class Client(TaskOperations, AgentOperations):
    """A connection to the bus; an async context manager.

    `url` is where the Redis server is, else CALLBOARD_REDIS_URL, else where `callboard up` listens. `pool` is where
    tasks go that name no other. Opening it raises `BusUnavailableError` when no server answers; later outages are
    waited through.
    """

    def __init__(self, url: str | None = None, *, pool: str = DEFAULT_POOL) -> None:
        self._link = Link(url, pool)
        self._submitter = Submitter(self._link.redis, self._link.url)
        self.schedules: Final = Schedules(self._link, self.handle)
        """Tasks that are submitted again and again."""
        self._outcomes: dict[str, Outcomes] = {}
        self._foreign: set[TaskId] = set()
        """Tasks that this client did not submit itself: the leader must be asked to tell of them."""

    @property
    def dead(self) -> DeadLetters:
        """The dead letters: to look at, requeue and purge."""
        return DeadLetters(self._link)

    @property
    def url(self) -> str:
        """Where the server is."""
        return self._link.url

    @property
    def pool(self) -> str:
        """Where tasks go that name no other pool."""
        return self._link.pool

    async def __aenter__(self) -> Self:
        try:
            await self._link.redis.ping()
        except CONNECTION_ERRORS as error:
            await self._link.redis.aclose()
            raise BusUnavailableError(self._link.url, str(error)) from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections. Tasks go on; whoever still submits or waits for one is cancelled."""
        await self._submitter.close()
        for outcomes in self._outcomes.values():
            await outcomes.close()
        self._outcomes.clear()
        with suppress(*CONNECTION_ERRORS):
            await self._link.redis.aclose()

    async def cancel_and_wait(
        self,
        task_ids: Iterable[str],
        reason: str = "",
        *,
        by: str | None = None,
        grace: float | None = None,
        timeout: float = DONE_S,
    ) -> CancelReport:
        """Cancel tasks as `cancel` does; return what has come of each, `timeout` seconds later at the latest.

        Returns as soon as all have ended. Those that are still being stopped then are told as `under_way`: it goes on.
        Raises `NoLeaderError` when no leader takes the request; it is stored, and the next one will.
        """
        by = by or self._link.client_id
        return await cancel_and_wait(
            self._link, self.handle, task_ids, reason=reason, by=by, grace=grace, timeout=timeout
        )

    # --- submitting

    @overload
    async def submit(
        self,
        capability: Callable[..., Coroutine[Any, Any, T]],
        payload: object = None,
        *,
        wait_for_room: float = 0.0,
        durability: Durability | None = None,
        **options: Unpack[TaskOptions],
    ) -> TaskHandle[T]: ...

    @overload
    async def submit(
        self,
        capability: Callable[..., T],
        payload: object = None,
        *,
        wait_for_room: float = 0.0,
        durability: Durability | None = None,
        **options: Unpack[TaskOptions],
    ) -> TaskHandle[T]: ...

    @overload
    async def submit(
        self,
        capability: str,
        payload: object = None,
        *,
        wait_for_room: float = 0.0,
        durability: Durability | None = None,
        **options: Unpack[TaskOptions],
    ) -> TaskHandle[Any]: ...

    async def submit(
        self,
        capability: str | Callable[..., Any],
        payload: object = None,
        *,
        wait_for_room: float = 0.0,
        durability: Durability | None = None,
        **options: Unpack[TaskOptions],
    ) -> TaskHandle[Any]:
        """Publish one task; returns when the server has stored it.

        `capability` is a name, or a name with all that is asked of an agent, ``translate>=2[lang contains de]`` (see
        `bus.requirement_text`), or the method of an agent that has it: then the handle's result comes back as what the
        method returns. `payload` is JSON or a pydantic model. With a `key` that was used before, nothing is submitted
        and the handle is that of the existing task.

        With `durability` it returns when the task is on the server's disk (``"fsync"``) or on a replica
        (``"replicated"``, `Replicated`): `DurabilityUnavailableError` says before anything is stored that the server
        cannot give that, `DurabilityNotProvenError` afterwards that the proof did not come.

        Raises `SubmissionError` when the task cannot be right (its text says why), `PayloadTooLargeError`,
        `QueueFullError` when as many tasks wait as may and none has left for `wait_for_room` seconds, and
        `BusUnavailableError` when the server does not answer for five seconds.
        """
        task = task_of(capability, payload, options)
        names, submission = submission_of(task, self._link.pool, self._link.client_id)
        prover = None if durability is None else await promised(self._link, durability)
        patience = Patience(wait_for_room)
        while True:
            try:
                known = await self._submitter.submit(names, submission)
            except QueueFullError:
                if not await patience.again():
                    raise
            else:
                handle = self._handle(names, submission.task_id, known=known, output=output_of(capability))
                if prover is not None:
                    await proven(prover, [handle])
                return handle

    async def submit_many(
        self, tasks: Iterable[TaskCreate], *, wait_for_room: float = 0.0, durability: Durability | None = None
    ) -> list[TaskHandle[Any]]:
        """Publish many tasks, hundreds in one round trip; returns their handles, in order, when all are stored.

        The iterable is read as the tasks are sent, 200 at a time. When it raises, or the server does not answer, those
        sent before are submitted; raises as `submit` does. Where there is room for some of the 200 only, the others are
        tried again for `wait_for_room` seconds; then `QueueFullError` is raised, whose `handles` tell which
        are stored, and no more are sent. `durability` is that of `submit`, proven once for all of them.
        """
        prover = await promised(self._link, durability)
        handles: list[TaskHandle[Any] | None] = []
        source = iter(tasks)
        sending: asyncio.Task[list[TaskHandle[Any] | None]] | None = None
        try:
            while (batch := Batch(self._link, islice(source, TASKS_PER_CALL))).all:
                if sending is not None:
                    handles += await sending
                sending = asyncio.create_task(self._send(batch, wait_for_room))
                await asyncio.sleep(0)  # it goes to the server now, which works while the next are taken
            if sending is not None:
                handles += await sending
        except BaseException as error:
            if sending is not None:
                sending.cancel()
            if isinstance(error, QueueFullError):
                error.handles = [*handles, *error.handles]
            raise
        stored = [handle for handle in handles if handle is not None]
        await proven(prover, stored)
        return stored

    async def _send(self, batch: Batch, wait_for_room: float) -> list[TaskHandle[Any] | None]:
        patience = Patience(wait_for_room)
        while (full := await batch.send()) is not None:
            if not await patience.again():
                full.handles = self._handles(batch)
                raise full
        return self._handles(batch)

    def _handles(self, batch: Batch) -> list[TaskHandle[Any] | None]:
        known, wait_for = batch.known, self._wait_for  # one, for all of them
        handles: list[TaskHandle[Any] | None] = [
            self._handle(names, one.task_id, known=True)
            if one.task_id in known
            else TaskHandle(self, self._outcomes_of(names).new_waiter(one.task_id), wait_for)
            for names, one in batch.all
        ]
        for place in batch.left:
            handles[place] = None
        return handles

    def _handle(
        self, names: PoolNames, task_id: TaskId, *, known: bool, output: TypeAdapter[Any] | None = None
    ) -> TaskHandle[Any]:
        outcomes = self._outcomes_of(names)
        if known:
            self._foreign.add(task_id)
            return TaskHandle(self, outcomes.waiter(task_id), self._wait_for, output)
        return TaskHandle(self, outcomes.new_waiter(task_id), self._wait_for, output)

    def _outcomes_of(self, names: PoolNames) -> Outcomes:
        outcomes = self._outcomes.get(names.pool)
        if outcomes is None:
            outcomes = self._outcomes[names.pool] = Outcomes(self._link.redis, names, self._link.client_id)
        return outcomes

    # --- waiting

    def _wait_for(self, waiter: Waiter) -> None:
        watch = waiter.task_id in self._foreign
        self._outcomes_of(self._link.names_of(waiter.task_id)).wait_for(waiter, watch=watch)
        self._foreign.discard(waiter.task_id)

    async def as_completed(self, handles: Iterable[TaskHandle[T]]) -> AsyncIterator[TaskHandle[T]]:
        """Yield the handles in the order in which their tasks end, well or badly; `result` tells which, at once.

        However many there are, one blocked read serves them all. Leaving the loop early is harmless.
        """
        async with aclosing(as_completed(handles)) as ended:
            async for handle in ended:
                yield handle

    def handle(self, task_id: str) -> TaskHandle[Any]:
        """Return a handle on a task that somebody submitted. Raises `ValueError` if `task_id` is no task's id."""
        names = self._link.names_of(task_id)
        return self._handle(names, TaskId(task_id), known=True)


def task_of(capability: object, payload: object, options: Mapping[str, Any]) -> TaskCreate:
    """Return the task that `Client.submit` was given. Raises `SubmissionError`."""
    try:
        return TaskCreate(capability=capability, payload=payload, **options)  # type: ignore[arg-type] # checked by it
    except ValidationError as error:
        raise SubmissionError(first_problem(error)) from error


def output_of(capability: object) -> TypeAdapter[Any] | None:
    """Return what the method of an agent returns; None for a name."""
    definition = getattr(capability, "__callboard_capability__", None)
    output: TypeAdapter[Any] | None = getattr(definition, "output", None)
    return output
