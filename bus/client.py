"""The client: publishes tasks, awaits results, shows and steers what is on the bus.

Meets the leader only on streams; reads the ledger directly. One client serves any number of coroutines of one event
loop.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from types import TracebackType
from typing import Any, Final, Self, TypedDict, TypeVar, Unpack, overload

from pydantic import JsonValue, TypeAdapter, ValidationError

from bus.agent_operations import AgentOperations
from bus.connection import CONNECTION_ERRORS
from bus.errors import BusUnavailableError, SubmissionError, first_problem
from bus.handle import TaskHandle
from bus.ids import DEFAULT_POOL, TaskId
from bus.limits import Limit
from bus.link import Link
from bus.names import PoolNames
from bus.records import TaskCreate
from bus.requirements import AnyOf, Condition, Preference
from bus.retries import RetryPolicy
from bus.schedule_operations import Schedules
from bus.states import TaskPriority
from bus.submission import Submission, in_calls, send, submission_of
from bus.submitter import Submitter
from bus.task_operations import TaskOperations
from bus.waiting import Outcomes, Waiter

T = TypeVar("T")

SUBMIT_AHEAD: Final = 1000
"""Tasks that `submit_many` takes from its iterable before it sends them."""


class TaskOptions(TypedDict, total=False):
    """Everything else that a task may be given; `bus.TaskCreate` tells what each means."""

    version: str | None
    priority: TaskPriority
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
    estimated_duration: float | None
    slots: int
    resources: Mapping[str, float]
    limits: Sequence[Limit | Mapping[str, object]]
    metadata: Mapping[str, JsonValue]
    tags: Sequence[str]
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

    # --- submitting

    @overload
    async def submit(
        self, capability: Callable[..., Coroutine[Any, Any, T]], payload: object = None, **options: Unpack[TaskOptions]
    ) -> TaskHandle[T]: ...

    @overload
    async def submit(
        self, capability: Callable[..., T], payload: object = None, **options: Unpack[TaskOptions]
    ) -> TaskHandle[T]: ...

    @overload
    async def submit(
        self, capability: str, payload: object = None, **options: Unpack[TaskOptions]
    ) -> TaskHandle[Any]: ...

    async def submit(
        self, capability: str | Callable[..., Any], payload: object = None, **options: Unpack[TaskOptions]
    ) -> TaskHandle[Any]:
        """Publish one task; returns when the server has stored it.

        `capability` is a name, or a name with all that is asked of an agent, ``translate>=2[lang contains de]`` (see
        `bus.requirement_text`), or the method of an agent that has it: then the handle's result comes back as what the
        method returns. `payload` is JSON or a pydantic model. With a `key` that was used before, nothing is submitted
        and the handle is that of the existing task.

        Raises `SubmissionError` when the task cannot be right (its text says why), `PayloadTooLargeError`, and
        `BusUnavailableError` when the server does not answer for five seconds.
        """
        try:
            task = TaskCreate.model_validate({"capability": capability, "payload": payload, **options})
        except ValidationError as error:
            raise SubmissionError(first_problem(error)) from error
        names, submission = submission_of(task, self.pool, self._link.client_id)
        known = await self._submitter.submit(names, submission)
        return self._handle(names, submission.task_id, known=known, output=_output_of(capability))

    async def submit_many(self, tasks: Iterable[TaskCreate]) -> list[TaskHandle[Any]]:
        """Publish many tasks, hundreds in one round trip; returns their handles, in order, when all are stored.

        The iterable is read as the tasks are sent. When it raises, or the server does not answer, those sent before
        are submitted; raises as `submit` does.
        """
        handles: list[TaskHandle[Any]] = []
        source = iter(tasks)
        sending: asyncio.Task[list[TaskHandle[Any]]] | None = None
        try:
            while chunk := list(islice(source, SUBMIT_AHEAD)):
                by_pool: dict[PoolNames, list[Submission]] = {}
                order: list[tuple[PoolNames, TaskId]] = []
                for task in chunk:
                    names, submission = submission_of(task, self.pool, self._link.client_id)
                    by_pool.setdefault(names, []).append(submission)
                    order.append((names, submission.task_id))
                if sending is not None:
                    handles += await sending
                sending = asyncio.create_task(self._send_all(by_pool, order))
            if sending is not None:
                handles += await sending
        except BaseException:
            if sending is not None:
                sending.cancel()
            raise
        return handles

    async def _send_all(
        self, by_pool: dict[PoolNames, list[Submission]], order: list[tuple[PoolNames, TaskId]]
    ) -> list[TaskHandle[Any]]:
        known: set[TaskId] = set()
        for names, submissions in by_pool.items():
            for part in in_calls(submissions):
                known |= await send(self._link.redis, self._link.url, names, part)
        return [self._handle(names, task_id, known=task_id in known) for names, task_id in order]

    def _handle(
        self, names: PoolNames, task_id: TaskId, *, known: bool, output: TypeAdapter[Any] | None = None
    ) -> TaskHandle[Any]:
        if known:
            self._foreign.add(task_id)
        return TaskHandle(self, self._outcomes_of(names).waiter(task_id), self._wait_for, output)

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
        ended: asyncio.Queue[TaskHandle[T]] = asyncio.Queue()
        waiting = list(handles)
        hooks: list[tuple[TaskHandle[T], partial[None]]] = []
        try:
            for handle in waiting:
                hook = partial(_note, ended, handle)
                hooks.append((handle, hook))
                handle.waiter.outcome.add_done_callback(hook)
                self._wait_for(handle.waiter)
            for _ in waiting:
                yield await ended.get()
        finally:
            for handle, hook in hooks:
                handle.waiter.outcome.remove_done_callback(hook)

    def handle(self, task_id: str) -> TaskHandle[Any]:
        """Return a handle on a task that somebody submitted. Raises `ValueError` if `task_id` is no task's id."""
        names = self._link.names_of(task_id)
        return self._handle(names, TaskId(task_id), known=True)


def _output_of(capability: object) -> TypeAdapter[Any] | None:
    definition = getattr(capability, "__callboard_capability__", None)
    output: TypeAdapter[Any] | None = getattr(definition, "output", None)
    return output


def _note(ended: asyncio.Queue[TaskHandle[T]], handle: TaskHandle[T], _: object) -> None:
    ended.put_nowait(handle)
