"""The client: publishes tasks, awaits results, shows and steers what is on the bus.

Meets the leader only on streams; reads the ledger directly. One client serves any number of coroutines of one event
loop.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from time import monotonic
from types import TracebackType
from typing import Any, Final, Self, TypedDict, TypeVar, Unpack, overload

from pydantic import BaseModel, JsonValue, TypeAdapter, ValidationError

from bus.connection import BLOCK_MS, CONNECTION_ERRORS, Redis, connect, resolve_url
from bus.errors import BusUnavailableError, NoLeaderError, SubmissionError, UnknownAgentError, UnknownTaskError
from bus.explanations import Explanation
from bus.handle import TaskHandle
from bus.ids import DEFAULT_POOL, ClientId, TaskId, check_pool, new_client_id, task_pool
from bus.ledger_view import LedgerView
from bus.limits import Limit
from bus.messages import AgentCommand, CancelTasks, Explain, Plan, Reply, Reprioritise, TaskFields
from bus.names import DATA_FIELD, PoolNames
from bus.records import AgentInfo, Task, TaskCreate, TaskInDB, TaskQueueStatus
from bus.requirements import AnyOf, Condition, Preference
from bus.retries import RetryPolicy
from bus.states import TaskPriority, TaskStatus
from bus.submission import Submission, in_calls, send, submission_of
from bus.submitter import Submitter
from bus.waiting import Outcomes, Waiter

T = TypeVar("T")

SUBMIT_AHEAD: Final = 1000
"""Tasks that `submit_many` takes from its iterable before it sends them."""
MAX_CONNECTIONS: Final = 16
"""Commands of one client that are under way at a time; each pool that results are awaited in takes one of them."""
ANSWER_S: Final = 3.0
"""How long the leader may take to answer a question: a take-over fits into it."""
ACCEPTED_POLL_S: Final = 0.02
IDS_PER_MESSAGE: Final = 1000


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


class Client:
    """A connection to the bus; an async context manager.

    `url` is where the Redis server is, else CALLBOARD_REDIS_URL, else where `callboard up` listens. `pool` is where
    tasks go that name no other. Opening it raises `BusUnavailableError` when no server answers; later outages are
    waited through.
    """

    def __init__(self, url: str | None = None, *, pool: str = DEFAULT_POOL) -> None:
        self.url = resolve_url(url)
        self.pool = check_pool(pool)
        self._id: ClientId = new_client_id()
        self._redis: Redis = connect(self.url, name=f"callboard-client-{self._id}", max_connections=MAX_CONNECTIONS)
        self._submitter = Submitter(self._redis, self.url)
        self._outcomes: dict[str, Outcomes] = {}
        self._foreign: set[TaskId] = set()
        """Tasks that this client did not submit itself: the leader must be asked to tell of them."""

    async def __aenter__(self) -> Self:
        try:
            await self._redis.ping()
        except CONNECTION_ERRORS as error:
            await self._redis.aclose()
            raise BusUnavailableError(self.url, str(error)) from error
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
            await self._redis.aclose()

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
            raise SubmissionError(_first_problem(error)) from error
        names, submission = submission_of(task, self.pool, self._id)
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
                    names, submission = submission_of(task, self.pool, self._id)
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
                known |= await send(self._redis, self.url, names, part)
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
            outcomes = self._outcomes[names.pool] = Outcomes(self._redis, names, self._id)
        return outcomes

    # --- waiting

    def _wait_for(self, waiter: Waiter) -> None:
        watch = waiter.task_id in self._foreign
        self._outcomes_of(self._names_of(waiter.task_id)).wait_for(waiter, watch=watch)
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
        names = self._names_of(task_id)
        return self._handle(names, TaskId(task_id), known=True)

    # --- looking and steering

    async def get(self, task_id: str, *, patience: float = 0.0) -> TaskInDB:
        """Return a task's full record, for a waiting one with the reason why it waits.

        A task that is not in the ledger is asked for again for `patience` seconds: it may be submitted and not yet
        accepted. Then raises `UnknownTaskError`.
        """
        view = self._view(task_pool(task_id))
        until = monotonic() + patience
        record = await self._ask(view.task(task_id))
        while record is None and monotonic() < until:
            await asyncio.sleep(ACCEPTED_POLL_S)
            record = await self._ask(view.task(task_id))
        if record is None:
            unread = (await self._ask(view.queue_status())).unread
            raise UnknownTaskError(task_id, unread)
        return record

    async def cancel(self, task_ids: Iterable[str], reason: str = "") -> None:
        """Ask that tasks be cancelled; returns when the request is stored. Ended ones are left as they are."""
        for names, part in self._parts(task_ids):
            await self._command(names, CancelTasks(task_ids=part, reason=reason, by=self._id))

    async def reprioritise(self, task_ids: Iterable[str], priority: TaskPriority) -> None:
        """Ask that tasks have another priority; returns when the request is stored. Ended ones stay as they are."""
        for names, part in self._parts(task_ids):
            await self._command(names, Reprioritise(task_ids=part, priority=priority))

    async def explain(self, task_id: str, *, timeout: float = ANSWER_S) -> Explanation:
        """Ask the leader why a task waits, in numbers, or why it is where it is.

        Raises `UnknownTaskError` for a task that has ended or was never accepted (`get` tells of the ended), and
        `NoLeaderError` when nobody answers within `timeout` seconds.
        """
        names = self._names_of(task_id)
        me = new_client_id()
        found = await self._question(names, Explain(task_id=TaskId(task_id), reply_to=me), me, timeout)
        if found is None:
            raise UnknownTaskError(task_id)
        return found

    async def plan(self, task: TaskCreate, *, timeout: float = ANSWER_S) -> Explanation:
        """Ask the leader what would become of a task if it were submitted now: who could run it, and what is missing.

        Raises `NoLeaderError` when nobody answers within `timeout` seconds.
        """
        names = self._names(task.pool)
        me = new_client_id()
        fields = TaskFields.model_validate(task.model_dump(include=set(TaskFields.model_fields)))
        found = await self._question(names, Plan(task=fields, reply_to=me), me, timeout)
        assert found is not None, "a plan is always explained"  # noqa: S101 - what the leader's answer has
        return found

    async def _question(
        self, names: PoolNames, asked: Explain | Plan, me: ClientId, timeout: float
    ) -> Explanation | None:
        """Ask, and read the one answer from a stream of its own, which is gone in a minute."""
        await self._command(names, asked)
        stream = names.replies(me)
        until = monotonic() + timeout
        while (left := until - monotonic()) > 0:
            read = self._redis.xread({stream: "0-0"}, count=1, block=max(1, min(BLOCK_MS, int(left * 1000))))
            reply: Any = await self._ask(read)
            for _, entries in reply or ():
                return Reply.model_validate_json(entries[0][1][DATA_FIELD.encode()]).explanation
        raise NoLeaderError(names.pool, timeout)

    async def list_tasks(
        self, status: TaskStatus | None = None, *, limit: int = 100, pool: str | None = None
    ) -> list[Task]:
        """Return at most `limit` tasks: those in agents' hands, then waiting ones in their order, then ended ones."""
        return await self._ask(self._view(pool).tasks(status, limit))

    async def queue_status(self, pool: str | None = None) -> TaskQueueStatus:
        """Return how much waits and runs in a pool."""
        return await self._ask(self._view(pool).queue_status())

    async def agents(self, pool: str | None = None) -> list[AgentInfo]:
        """Return every agent that a pool knows."""
        return await self._ask(self._view(pool).agents())

    async def agent(self, agent_id: str, pool: str | None = None) -> AgentInfo:
        """Return one agent. Raises `UnknownAgentError`."""
        found = await self._ask(self._view(pool).agent(agent_id))
        if found is None:
            raise UnknownAgentError(agent_id, pool or self.pool)
        return found

    async def drain_agent(self, agent_id: str, reason: str = "", *, pool: str | None = None) -> None:
        """Ask an agent to finish what it has, take nothing new, and stop. Raises `UnknownAgentError`."""
        await self.agent(agent_id, pool)
        await self._command(self._names(pool), AgentCommand(type="drain", agent_id=agent_id, reason=reason))

    async def restart_agent(self, agent_id: str, reason: str = "", *, pool: str | None = None) -> None:
        """Ask an agent to finish what it has and start anew, which its supervisor does. Raises `UnknownAgentError`."""
        await self.agent(agent_id, pool)
        await self._command(self._names(pool), AgentCommand(type="restart", agent_id=agent_id, reason=reason))

    # --- within

    def _names(self, pool: str | None) -> PoolNames:
        return PoolNames(check_pool(pool or self.pool))

    def _names_of(self, task_id: str) -> PoolNames:
        return PoolNames(task_pool(task_id))

    def _parts(self, task_ids: Iterable[str]) -> Iterator[tuple[PoolNames, tuple[TaskId, ...]]]:
        """Sort ids by pool, and cut them into what one message may hold."""
        by_pool: dict[PoolNames, list[TaskId]] = {}
        for task_id in task_ids:
            by_pool.setdefault(self._names_of(task_id), []).append(TaskId(task_id))
        for names, ids in by_pool.items():
            for start in range(0, len(ids), IDS_PER_MESSAGE):
                yield names, tuple(ids[start : start + IDS_PER_MESSAGE])

    def _view(self, pool: str | None) -> LedgerView:
        return LedgerView(self._redis, self._names(pool))

    async def _command(self, names: PoolNames, message: BaseModel) -> None:
        await self._ask(self._redis.xadd(names.commands, {DATA_FIELD: message.model_dump_json()}))

    async def _ask(self, asked: Awaitable[T]) -> T:
        try:
            return await asked
        except CONNECTION_ERRORS as error:
            raise BusUnavailableError(self.url, str(error)) from error


def _output_of(capability: object) -> TypeAdapter[Any] | None:
    definition = getattr(capability, "__callboard_capability__", None)
    output: TypeAdapter[Any] | None = getattr(definition, "output", None)
    return output


def _note(ended: asyncio.Queue[TaskHandle[T]], handle: TaskHandle[T], _: object) -> None:
    ended.put_nowait(handle)


def _first_problem(error: ValidationError) -> str:
    problem = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in problem["loc"])
    text = problem["msg"].removeprefix("Value error, ")
    return f"{where}: {text}" if where else text
