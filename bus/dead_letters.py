"""Dead letters: tasks that have FAILED, kept with every attempt until their retention is over.

What is read comes from the ledger; what is to become of them is the leader's decision, which answers for each.
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from typing import Final

from bus.errors import NotDeadError, UnknownTaskError
from bus.filters import TaskFilter
from bus.ids import TaskId, new_client_id, task_pool
from bus.ledger_view import TaskList
from bus.link import IDS_PER_MESSAGE, Link
from bus.messages import OfDead, PurgeDead, RequeueDead
from bus.names import PoolNames
from bus.records import TaskInDB
from bus.states import TaskPriority, TaskStatus

ANSWERS_S: Final = 10.0
"""How long the leader may take to answer for the next few tasks: a take-over fits into it."""


class DeadLetters:
    """The dead letters of a client's pools; `Client.dead`."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def list(
        self, where: TaskFilter | str = "", *, limit: int = 100, pool: str | None = None, look_at: int = 100_000
    ) -> TaskList:
        """Return at most `limit` dead letters that match, the latest first, of the latest `look_at`.

        Raises `ValueError` for a filter that cannot be read.
        """
        dead = self._link.filter(where).model_copy(update={"status": (TaskStatus.FAILED,)})
        return await self._link.ask(self._link.view(pool).tasks(dead, limit, look_at))

    async def get(self, task_id: str) -> TaskInDB:
        """Return all that is known of one. Raises `UnknownTaskError`, and `NotDeadError` if it is not FAILED."""
        record = await self._link.ask(self._link.view(task_pool(task_id)).task(task_id))
        if record is None:
            raise UnknownTaskError(task_id)
        if record.status is not TaskStatus.FAILED:
            raise NotDeadError(task_id, record.status)
        return record

    async def count(self, where: TaskFilter | str = "", *, pool: str | None = None) -> int:
        """Return how many match. Reads the record of each, unless all match."""
        asked = self._link.filter(where)
        view = self._link.view(pool)
        if asked.empty:
            return (await self._link.ask(view.queue_status())).dead
        return len([None async for _ in view.dead_ids(asked)])

    async def requeue(
        self,
        task_ids: Iterable[str] = (),
        *,
        where: TaskFilter | str | None = None,
        priority: TaskPriority | None = None,
        reason: str = "",
        by: str | None = None,
        pool: str | None = None,
        timeout: float = ANSWERS_S,
    ) -> OfDead:
        """Give dead letters a new life: these, or all that match `where` (an empty one is all of the pool).

        Each is the same task: its id, key and past attempts stay, its attempts are counted anew, it stands in line by
        the present time and at `priority`, if one is given; its submitter is told the new outcome, and a handle that is
        made now waits for it. `by` is who wants it, this client if None, as the records tell. Returns what became of
        each, when the leader has stored it.

        `timeout` is how long (s) the leader may be silent; then `NoLeaderError` is raised, and a part may be done.
        Asking again is harmless. Raises `ValueError` for what is no id or no filter, `BusUnavailableError`.
        """
        told = OfDead()
        async for names, ids in self._parts(task_ids, where, pool):
            me = new_client_id()
            who = by or self._link.client_id
            asked = RequeueDead(task_ids=ids, priority=priority, reason=reason, by=who, reply_to=me)
            told = _both(told, await self._answers(names, asked, timeout))
        return told

    async def purge(
        self,
        task_ids: Iterable[str] = (),
        *,
        where: TaskFilter | str | None = None,
        by: str | None = None,
        pool: str | None = None,
        timeout: float = ANSWERS_S,
    ) -> OfDead:
        """Delete dead letters for good, with all that is known of them: these, or all that match `where`.

        Returns and raises as `requeue` does.
        """
        told = OfDead()
        async for names, ids in self._parts(task_ids, where, pool):
            asked = PurgeDead(task_ids=ids, by=by or self._link.client_id, reply_to=new_client_id())
            told = _both(told, await self._answers(names, asked, timeout))
        return told

    async def _parts(
        self, task_ids: Iterable[str], where: TaskFilter | str | None, pool: str | None
    ) -> AsyncIterator[tuple[PoolNames, tuple[TaskId, ...]]]:
        """Yield what one message may hold each, oldest first."""
        given = list(dict.fromkeys(task_ids))
        if bool(given) == (where is not None):
            raise ValueError("say which dead letters are meant, by their ids or by `where`; where='' is all of them")
        if where is None:
            for names, ids in self._link.parts(given):
                yield names, ids
            return
        names, found = self._link.names(pool), list[TaskId]()
        async for task_id in self._link.view(pool).dead_ids(self._link.filter(where)):
            found.append(TaskId(task_id))
            if len(found) == IDS_PER_MESSAGE:
                yield names, tuple(found)
                found = []
        if found:
            yield names, tuple(found)

    async def _answers(self, names: PoolNames, asked: RequeueDead | PurgeDead, timeout: float) -> OfDead:
        """Send one command; return the answers together, of which there may be several, and some twice."""
        left, told = set(asked.task_ids), OfDead()
        me = asked.reply_to or ""
        async with aclosing(self._link.answers(names, asked, me, timeout)) as answers:
            async for reply in answers:
                said = reply.dead or OfDead()
                told = _both(told, _only(said, left))
                left -= {task_id for ids in _lists(said) for task_id in ids}
                if not left:
                    break
        return told


def _lists(said: OfDead) -> tuple[tuple[str, ...], ...]:
    return said.done, said.not_dead, said.unknown, said.refused


def _only(said: OfDead, wanted: set[str]) -> OfDead:
    done, not_dead, unknown, refused = (tuple(one for one in ids if one in wanted) for ids in _lists(said))
    return OfDead(done=done, not_dead=not_dead, unknown=unknown, refused=refused)


def _both(one: OfDead, other: OfDead) -> OfDead:
    done, not_dead, unknown, refused = (a + b for a, b in zip(_lists(one), _lists(other), strict=True))
    return OfDead(done=done, not_dead=not_dead, unknown=unknown, refused=refused)
