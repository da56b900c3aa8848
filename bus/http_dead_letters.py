"""Dead letters over HTTP: `HttpClient.dead`."""

from collections.abc import Iterable
from typing import Any

from bus.filters import TaskFilter
from bus.http_link import About, HttpLink
from bus.http_tasks import conditions, meant, pages, parts, query_of
from bus.ids import task_pool
from bus.ledger_view import TaskList
from bus.messages import OfDead
from bus.records import TaskInDB
from bus.states import TaskPriority


class HttpDeadLetters:
    """As `bus.dead_letters.DeadLetters`, over HTTP."""

    def __init__(self, link: HttpLink) -> None:
        self._link = link

    async def list(self, where: TaskFilter | str = "", *, limit: int = 100, pool: str | None = None) -> TaskList:
        """Return at most `limit` dead letters that match, the latest first."""
        asked = conditions(where).model_copy(update={"status": ()})
        return await pages(self._link, "/dead", query_of(asked), limit, pool)

    async def get(self, task_id: str) -> TaskInDB:
        """Return all that is known of one. Raises `UnknownTaskError`, and `NotDeadError` if it is not FAILED."""
        task_pool(task_id)
        return TaskInDB.model_validate(await self._link.ask("GET", f"/dead/{task_id}", about=About(task_id)))

    async def count(self, where: TaskFilter | str = "", *, pool: str | None = None) -> int:
        """Return how many match; reads the record of each, unless all match."""
        asked = conditions(where)
        if asked.empty:
            told = await self._link.ask("GET", "/tasks/queue/status", pool=pool or self._link.pool)
            return int(told["dead"])
        return len(await self.list(asked, limit=1 << 30, pool=pool))

    async def requeue(
        self,
        task_ids: Iterable[str] = (),
        *,
        where: TaskFilter | str | None = None,
        priority: TaskPriority | None = None,
        reason: str = "",
        pool: str | None = None,
    ) -> OfDead:
        """Give dead letters a new life; see `DeadLetters.requeue`."""
        return await self._do("requeue", task_ids, where, pool, {"priority": priority, "reason": reason})

    async def purge(
        self, task_ids: Iterable[str] = (), *, where: TaskFilter | str | None = None, pool: str | None = None
    ) -> OfDead:
        """Delete dead letters for good; see `DeadLetters.purge`."""
        return await self._do("purge", task_ids, where, pool, {})

    async def _do(
        self, verb: str, task_ids: Iterable[str], where: TaskFilter | str | None, pool: str | None, more: dict[str, Any]
    ) -> OfDead:
        given = parts(task_ids)
        if bool(given) == (where is not None):
            raise ValueError("say which dead letters are meant, by their ids or by `where`; where='' is all of them")
        bodies = [{"task_ids": ids} for ids in given] if where is None else [meant(where)]
        told: dict[str, list[str]] = {"done": [], "not_dead": [], "unknown": [], "refused": []}
        for body in bodies:
            answer = await self._link.ask("POST", f"/dead/{verb}", body={**body, **more}, pool=pool or self._link.pool)
            for name, ids in told.items():
                ids.extend(answer[name])
        return OfDead.model_validate(told)
