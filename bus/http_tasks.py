"""Looking at tasks and steering them over HTTP: a part of `bus.HttpClient`."""

import asyncio
from collections.abc import Iterable, Sequence
from time import monotonic
from typing import Any, Final

from pydantic import TypeAdapter

from bus.cancelling import DONE_S, CancelReport
from bus.clock import wall_ms
from bus.errors import UnknownTaskError
from bus.explanations import Explanation
from bus.filters import TaskFilter
from bus.http_link import About, HttpLink
from bus.ids import task_pool
from bus.ledger_view import TaskList
from bus.messages import OfTimeOut
from bus.records import Task, TaskCreate, TaskInDB, TaskQueueStatus
from bus.states import TaskPriority, TaskStatus
from bus.submission import content_of

IDS_AT_ONCE: Final = 1000
PAGE: Final = 500
ACCEPTED_POLL_S: Final = 0.05
_TASKS: Final = TypeAdapter(list[Task])


def conditions(where: TaskFilter | str) -> TaskFilter:
    """Return the filter that is meant; in a text, "ago" counts from this machine's clock. Raises `ValueError`."""
    return where if isinstance(where, TaskFilter) else TaskFilter.parse(where, wall_ms())


def meant(where: TaskFilter | str) -> dict[str, Any]:
    """Return the part of a body that says which tasks are meant: those that match, or all."""
    asked = conditions(where).model_dump(mode="json", exclude_defaults=True)
    return {"where": asked} if asked else {"all": True}


def query_of(where: TaskFilter) -> dict[str, Any]:
    """Return a filter as a query has it."""
    given = where.model_dump(mode="json", exclude_defaults=True)
    names = {"agent_id": "agent", "tags": "tag"}
    return {names.get(name, name): value for name, value in given.items()}


def parts(task_ids: Iterable[str]) -> list[Sequence[str]]:
    """Cut ids into what one request may have. Raises `ValueError` for what is no task's id."""
    ids = list(dict.fromkeys(task_ids))
    for task_id in ids:
        task_pool(task_id)
    return [ids[start : start + IDS_AT_ONCE] for start in range(0, len(ids), IDS_AT_ONCE)]


class HttpTasks:
    """A part of `bus.HttpClient`: every method does what that of `bus.Client` does, and raises what it raises.

    Who asks is the client's token: `by`, where `Client` has it, must be left out.
    """

    _link: HttpLink

    async def statuses(self, task_ids: Iterable[str]) -> dict[str, TaskStatus | None]:
        """Return the status of each task, None of those that the ledger does not have; a request for each."""
        found: dict[str, TaskStatus | None] = {}
        for some in parts(task_ids):
            for task_id in some:
                try:
                    found[task_id] = (await self.get(task_id)).status
                except UnknownTaskError:
                    found[task_id] = None
        return found

    async def get(self, task_id: str, *, patience: float = 0.0) -> TaskInDB:
        """Return a task's full record; see `Client.get`."""
        task_pool(task_id)
        until = monotonic() + patience
        while True:
            try:
                found = await self._link.ask("GET", f"/tasks/{task_id}", about=About(task_id))
            except UnknownTaskError:
                if monotonic() >= until:
                    raise
                await asyncio.sleep(ACCEPTED_POLL_S)
            else:
                return TaskInDB.model_validate(found)

    async def cancel(
        self, task_ids: Iterable[str], reason: str = "", *, by: str | None = None, grace: float | None = None
    ) -> None:
        """Have tasks cancelled; see `Client.cancel`. Returns when the leader has taken it."""
        _nobody(by)
        await self._cancel(task_ids, reason, grace, 0.0)

    async def cancel_and_wait(
        self,
        task_ids: Iterable[str],
        reason: str = "",
        *,
        by: str | None = None,
        grace: float | None = None,
        timeout: float = DONE_S,
    ) -> CancelReport:
        """Cancel tasks, and return what has come of each; see `Client.cancel_and_wait`.

        Waits no longer than the API allows, a minute.
        """
        _nobody(by)
        return await self._cancel(task_ids, reason, grace, timeout)

    async def _cancel(self, task_ids: Iterable[str], reason: str, grace: float | None, wait: float) -> CancelReport:
        found: dict[str, list[str]] = {}
        over: dict[str, TaskStatus] = {}
        unknown: list[str] = []
        until = monotonic() + wait
        for ids in parts(task_ids):
            body = {"task_ids": ids, "reason": reason} | ({} if grace is None else {"grace": grace})
            left = max(0.0, until - monotonic())
            told = await self._link.ask("POST", "/tasks/cancel", body=body, wait=left)
            for one in told["cancelled"]:
                found.setdefault(one["step"], []).append(one["task_id"])
            over |= {one["task_id"]: TaskStatus(one["status"]) for one in told["over"]}
            unknown += told["unknown"]
        under_way = [task_id for step in ("requested", "delivered", "acknowledged") for task_id in found.get(step, ())]
        return CancelReport(
            cancelled=tuple(found.get("finished", ())),
            given_up=tuple(found.get("given_up", ())),
            over=over,
            unknown=tuple(unknown),
            under_way=tuple(under_way),
        )

    async def cancel_matching(
        self, where: TaskFilter | str, reason: str = "", *, by: str | None = None, pool: str | None = None
    ) -> int:
        """Cancel every live task that matches; return how many; see `Client.cancel_matching`."""
        _nobody(by)
        body = {**meant(where), "reason": reason}
        told = await self._link.ask("POST", "/tasks/cancel", body=body, pool=pool or self._link.pool)
        return int(told["matched"])

    async def reprioritise(self, task_ids: Iterable[str], priority: TaskPriority) -> None:
        """Ask that tasks have another priority; see `Client.reprioritise`."""
        for ids in parts(task_ids):
            await self._link.ask("POST", "/tasks/reprioritise", body={"task_ids": ids, "priority": priority})

    async def reprioritise_matching(
        self, where: TaskFilter | str, priority: TaskPriority, *, by: str | None = None, pool: str | None = None
    ) -> int:
        """Give every live task that matches another priority; see `Client.reprioritise_matching`."""
        _nobody(by)
        body = {**meant(where), "priority": priority}
        told = await self._link.ask("POST", "/tasks/reprioritise", body=body, pool=pool or self._link.pool)
        return int(told["matched"])

    async def timeout(
        self, task_id: str, reason: str = "", *, attempt: int | None = None, by: str | None = None
    ) -> OfTimeOut:
        """Declare the attempt of a running task overdue; see `Client.timeout`.

        If an answer is lost and the request sent again, the attempt may have ended by the first one: `NotRunningError`.
        """
        _nobody(by)
        number = attempt or (await self.get(task_id)).attempt or None
        told = await self._link.ask(
            "POST",
            f"/tasks/{task_id}/timeout",
            about=About(task_id, attempt),
            body={"reason": reason, "attempt": number},
        )
        return OfTimeOut(done=True, status=TaskStatus(told["status"]), attempt=told["attempt"])

    async def explain(self, task_id: str) -> Explanation:
        """Ask the leader why a task waits; see `Client.explain`."""
        task_pool(task_id)
        told = await self._link.ask("GET", f"/tasks/{task_id}/explain", about=About(task_id, pool=task_pool(task_id)))
        return Explanation.model_validate(told)

    async def plan(self, task: TaskCreate) -> Explanation:
        """Ask the leader what would become of a task; see `Client.plan`."""
        pool = task.pool or self._link.pool
        told = await self._link.ask(
            "POST", "/tasks/plan", about=About(pool=pool, size=1), body=content_of(task), pool=pool
        )
        return Explanation.model_validate(told)

    async def list_tasks(
        self,
        status: TaskStatus | None = None,
        *,
        where: TaskFilter | str = "",
        limit: int = 100,
        pool: str | None = None,
    ) -> TaskList:
        """Return at most `limit` tasks that match: delayed, waiting, in agents' hands, then ended, the latest first.

        Raises `ValueError` for a filter that cannot be read.
        """
        asked = conditions(where)
        if status is not None:
            if asked.status and status not in asked.status:
                return TaskList()
            asked = asked.model_copy(update={"status": (status,)})
        return await pages(self._link, "/tasks", query_of(asked), limit, pool)

    async def children(self, task_id: str, *, limit: int = 100) -> list[Task]:
        """Return at most `limit` children of a task, of 500 at most; see `Client.children`."""
        task_pool(task_id)
        path = f"/tasks/{task_id}/children"
        told = await self._link.ask("GET", path, about=About(task_id), limit=min(limit, PAGE))
        return _TASKS.validate_python(told["tasks"])

    async def queue_status(self, pool: str | None = None) -> TaskQueueStatus:
        """Return how much waits and runs in a pool."""
        told = await self._link.ask("GET", "/tasks/queue/status", pool=pool or self._link.pool)
        return TaskQueueStatus.model_validate(told)


async def pages(link: HttpLink, path: str, query: dict[str, Any], limit: int, pool: str | None) -> TaskList:
    """Read a list page by page until `limit` tasks are found, or it ends; `complete` tells which."""
    found, cursor = TaskList(), None
    while len(found) < limit:
        left = min(PAGE, limit - len(found))
        told = await link.ask("GET", path, **query, limit=left, cursor=cursor, pool=pool or link.pool)
        found += _TASKS.validate_python(told["tasks"])
        cursor = told["next"]
        if cursor is None:
            return found
    found.complete = False
    return found


def _nobody(by: str | None) -> None:
    if by:
        raise ValueError("over HTTP it is the name of the token that is recorded: leave `by` out")
