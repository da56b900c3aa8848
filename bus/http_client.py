"""The client over HTTP: what `bus.Client` does, for programs that reach the REST API and not Redis.

Every submission carries a key, so it is sent again when its answer is lost, and stored once. Meets nothing but the API;
one client serves any number of coroutines of one event loop.
"""

from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import aclosing
from itertools import islice
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeVar, Unpack, overload

from pydantic import TypeAdapter

from bus.client import TaskOptions, output_of, task_of
from bus.errors import PayloadTooLargeError, QueueFullError, SubmissionError
from bus.handle import TaskHandle, as_completed
from bus.http_agents import HttpAgents
from bus.http_dead_letters import HttpDeadLetters
from bus.http_events import HttpEvent, events_of, query_of
from bus.http_link import RETRY_FOR_S, About, HttpLink
from bus.http_outcomes import HttpOutcomes
from bus.http_schedules import HttpSchedules
from bus.http_tasks import HttpTasks
from bus.ids import DEFAULT_POOL, TaskId, check_pool, new_nonce, task_pool
from bus.messages import MAX_BODY_BYTES
from bus.records import TaskCreate
from bus.states import AgentStatus, TaskStatus
from bus.submission import content_of
from bus.submission_batch import Patience

T = TypeVar("T")

TASKS_AT_ONCE: Final = 500
"""Tasks of one request."""
BYTES_AT_ONCE: Final = MAX_BODY_BYTES - 64 * 1024
"""Bytes of the tasks of one request: the API takes 1 MiB."""


class HttpClient(HttpTasks, HttpAgents):
    """A connection to the REST API; an async context manager. Its methods do, and raise, what those of `Client` do.

    `url` is where the API is, else CALLBOARD_API_URL, else where `callboard up` serves it; `token` is sent with each
    request, else CALLBOARD_API_TOKEN if it is set. `pool` is where tasks go that name no other. A request that is not
    answered, or by "not now", is sent again for `retry_for` seconds. Opening it raises `ApiUnavailableError` when no
    API answers; later outages are waited through by whoever waits for a result. It needs httpx, which
    ``pip install 'callboard[http]'`` brings.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        pool: str = DEFAULT_POOL,
        token: str | None = None,
        retry_for: float = RETRY_FOR_S,
    ) -> None:
        self._link = HttpLink(url, pool, token=token, retry_for=retry_for)
        self._outcomes = HttpOutcomes(self._link)
        self.dead: Final = HttpDeadLetters(self._link)
        """The dead letters: to look at, requeue and purge."""
        self.schedules: Final = HttpSchedules(self._link, self.handle)
        """Tasks that are submitted again and again."""

    @property
    def url(self) -> str:
        """Where the API is."""
        return self._link.url

    @property
    def pool(self) -> str:
        """Where tasks go that name no other pool."""
        return self._link.pool

    async def __aenter__(self) -> Self:
        try:
            await self._link.ask("GET", "/livez")
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections. Tasks go on; whoever still waits for one is told so."""
        await self._outcomes.close()
        await self._link.close()

    # --- submitting

    @overload
    async def submit(
        self,
        capability: Callable[..., Coroutine[Any, Any, T]],
        payload: object = None,
        *,
        wait_for_room: float = 0.0,
        durability: Literal["fsync", "replicated"] | None = None,
        **options: Unpack[TaskOptions],
    ) -> TaskHandle[T]: ...

    @overload
    async def submit(
        self,
        capability: Callable[..., T],
        payload: object = None,
        *,
        wait_for_room: float = 0.0,
        durability: Literal["fsync", "replicated"] | None = None,
        **options: Unpack[TaskOptions],
    ) -> TaskHandle[T]: ...

    @overload
    async def submit(
        self,
        capability: str,
        payload: object = None,
        *,
        wait_for_room: float = 0.0,
        durability: Literal["fsync", "replicated"] | None = None,
        **options: Unpack[TaskOptions],
    ) -> TaskHandle[Any]: ...

    async def submit(
        self,
        capability: str | Callable[..., Any],
        payload: object = None,
        *,
        wait_for_room: float = 0.0,
        durability: Literal["fsync", "replicated"] | None = None,
        **options: Unpack[TaskOptions],
    ) -> TaskHandle[Any]:
        """Submit one task; returns when the server has stored it. See `Client.submit`.

        Of `DurabilityNotProvenError` the `handles` are empty: with the task's key it may be submitted again.
        """
        task = task_of(capability, payload, options)
        content = content_of(task)
        about = About(pool=self._pool_of(task), size=len(content))
        if about.size > MAX_BODY_BYTES:
            raise PayloadTooLargeError(about.size, MAX_BODY_BYTES)
        headers = {"Idempotency-Key": new_nonce()} if task.key is None else {}
        patience = Patience(wait_for_room)
        while True:
            try:
                told = await self._link.ask(
                    "POST",
                    "/tasks/dispatch",
                    about=about,
                    body=content,
                    headers=headers,
                    pool=about.pool,
                    durability=durability,
                )
            except QueueFullError:
                if not await patience.again():
                    raise
            else:
                return self._handle(told["tasks"][0]["id"], output_of(capability))

    async def submit_many(
        self,
        tasks: Iterable[TaskCreate],
        *,
        wait_for_room: float = 0.0,
        durability: Literal["fsync", "replicated"] | None = None,
    ) -> list[TaskHandle[Any]]:
        """Submit many tasks, hundreds in one request; returns their handles, in order, when all are stored.

        The iterable is read as the tasks are sent. When it raises, or the API does not answer, those sent before are
        submitted. See `Client.submit_many`.
        """
        handles: list[TaskHandle[Any] | None] = []
        source = iter(tasks)
        while chunk := list(islice(source, TASKS_AT_ONCE)):
            ids: list[str | None] = [None] * len(chunk)
            try:
                await self._submit_chunk(chunk, ids, Patience(wait_for_room), durability)
            except QueueFullError as full:
                full.handles = [*handles, *(None if one is None else self._handle(one) for one in ids)]
                raise
            handles += [self._handle(one) for one in ids if one is not None]
        return [handle for handle in handles if handle is not None]

    async def _submit_chunk(
        self, tasks: Sequence[TaskCreate], ids: list[str | None], patience: Patience, durability: str | None
    ) -> None:
        """Store some tasks, and put their ids into `ids`; those that there is no room for are tried again."""
        nonce = new_nonce()
        contents = [_keyed(task, f"{nonce}#{n}") for n, task in enumerate(tasks)]
        while True:
            full: QueueFullError | None = None
            for pool, places in self._parts(tasks, contents, ids):
                body = b'{"tasks":[%b]}' % b",".join(contents[n] for n in places)
                about = About(pool=pool, size=len(body))
                try:
                    told = await self._link.ask(
                        "POST", "/tasks/dispatch", about=about, body=body, pool=pool, durability=durability
                    )
                except QueueFullError as error:
                    full = error
                    continue
                for n, one in zip(places, told["tasks"], strict=True):
                    if one["refused"]:
                        full = full or QueueFullError(pool, tasks[n].capability, bound=0, pending=0)
                    else:
                        ids[n] = one["id"]
            if full is None:
                return
            if not await patience.again():
                raise full

    def _parts(
        self, tasks: Sequence[TaskCreate], contents: Sequence[bytes], ids: Sequence[str | None]
    ) -> Iterable[tuple[str, list[int]]]:
        """Return the places of tasks that are not stored, by pool, in what one request may have."""
        parts: list[tuple[str, list[int]]] = []
        size = 0
        open_parts: dict[str, list[int]] = {}
        sizes: dict[str, int] = {}
        for n, task in enumerate(tasks):
            if ids[n] is not None:
                continue
            pool, size = self._pool_of(task), len(contents[n]) + 1
            if size > MAX_BODY_BYTES:
                raise PayloadTooLargeError(size, MAX_BODY_BYTES)
            if pool not in open_parts or sizes[pool] + size > BYTES_AT_ONCE:
                open_parts[pool], sizes[pool] = [], 0
                parts.append((pool, open_parts[pool]))
            open_parts[pool].append(n)
            sizes[pool] += size
        return parts

    def _pool_of(self, task: TaskCreate) -> str:
        return check_pool(task.pool or self.pool)

    def _handle(self, task_id: str, output: TypeAdapter[Any] | None = None) -> TaskHandle[Any]:
        return TaskHandle(self, self._outcomes.waiter(TaskId(task_id)), self._outcomes.wait_for, output)

    # --- waiting

    async def as_completed(self, handles: Iterable[TaskHandle[T]]) -> AsyncIterator[TaskHandle[T]]:
        """Yield the handles in the order in which their tasks end, well or badly; `result` tells which, at once."""
        async with aclosing(as_completed(handles)) as ended:
            async for handle in ended:
                yield handle

    def handle(self, task_id: str) -> TaskHandle[Any]:
        """Return a handle on a task that somebody submitted. Raises `ValueError` if `task_id` is no task's id."""
        task_pool(task_id)
        return self._handle(task_id)

    async def events(
        self,
        *,
        task: str | Iterable[str] | None = None,
        agent: str | Iterable[str] | None = None,
        capability: str | Iterable[str] | None = None,
        status: TaskStatus | AgentStatus | Iterable[TaskStatus | AgentStatus] | None = None,
        kind: str | None = None,
        after: str | None = None,
        pool: str | None = None,
    ) -> AsyncIterator[HttpEvent]:
        """Yield every transition that is asked for, as it comes, for ever; `after` is the id of the last one seen.

        A connection that ends is made anew behind the last event. If events in between are not kept any more, an event
        of kind `gap` says so. Raises `ApiProblemError` for what is not allowed.
        """
        query = query_of(
            task=task,
            agent=agent,
            capability=capability,
            status=status,
            kind=kind,
            pool=pool or self.pool,
        )
        async with aclosing(events_of(self._link, query, after)) as events:
            async for event in events:
                yield event


def _keyed(task: TaskCreate, key: str) -> bytes:
    """Return a task's content with a key, its own if it has one. Raises `SubmissionError` for what is no task."""
    if not isinstance(task, TaskCreate):
        raise SubmissionError(f"{task!r:.100} is not a TaskCreate: write TaskCreate(capability=..., payload=...)")
    content = content_of(task)
    return content if task.key is not None else b'{"key":"%b",%b' % (key.encode(), content[1:])
