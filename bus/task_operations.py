"""Looking at tasks and steering them: what a client does beside submitting and waiting."""

import asyncio
from collections.abc import Iterable
from contextlib import aclosing
from time import monotonic
from typing import Final

from bus.endings import explanation_of
from bus.errors import NotRunningError, UnknownTaskError
from bus.explanations import Explanation
from bus.filters import TaskFilter
from bus.ids import TaskId, new_client_id, task_pool
from bus.ledger_view import TaskList
from bus.link import ANSWER_S, Link
from bus.messages import (
    CancelMatching,
    CancelTasks,
    Explain,
    OfTimeOut,
    Plan,
    Reprioritise,
    ReprioritiseMatching,
    TaskFields,
    TimeOutTask,
)
from bus.records import Task, TaskCreate, TaskInDB, TaskQueueStatus
from bus.states import TaskPriority, TaskStatus

ACCEPTED_POLL_S: Final = 0.02
SWEEP_S: Final = 10.0
"""How long the leader may be silent about a command that speaks of all tasks of a kind; it says each second or so how
far it is."""


class TaskOperations:
    """A part of `bus.Client`. What the leader must do is asked for; what the ledger knows is read."""

    _link: Link

    async def get(self, task_id: str, *, patience: float = 0.0) -> TaskInDB:
        """Return a task's full record, for a waiting one with the reason why it waits.

        A task that is not in the ledger is asked for again for `patience` seconds: it may be submitted and not yet
        accepted. Then raises `UnknownTaskError`.
        """
        view = self._link.view(task_pool(task_id))
        until = monotonic() + patience
        record = await self._link.ask(view.task(task_id))
        while record is None and monotonic() < until:
            await asyncio.sleep(ACCEPTED_POLL_S)
            record = await self._link.ask(view.task(task_id))
        if record is None:
            unread = (await self._link.ask(view.queue_status())).unread
            raise UnknownTaskError(task_id, unread)
        return record

    async def cancel(
        self, task_ids: Iterable[str], reason: str = "", *, by: str | None = None, grace: float | None = None
    ) -> None:
        """Ask that tasks be cancelled; returns when the request is stored. Ended ones are left as they are.

        What no agent has is CANCELLED as soon as the leader reads it. What an agent has is stopped by it: its code may
        take `grace` seconds (the pool's 5 s if None) to clean up, then the task is given up: CANCELLED all the same,
        and its slot taken until the code has stopped. `by` is who wants it, this client if None, as the record tells.
        """
        for names, part in self._link.parts(task_ids):
            asked = CancelTasks(task_ids=part, reason=reason, by=by or self._link.client_id, grace=grace)
            await self._link.command(names, asked)

    async def cancel_matching(
        self,
        where: TaskFilter | str,
        reason: str = "",
        *,
        by: str | None = None,
        pool: str | None = None,
        timeout: float = SWEEP_S,
    ) -> int:
        """Cancel every live task that matches and was submitted before; return how many that were.

        The leader looks at each live task, a few thousand at a time between its other work. Those whose submission it
        has not read yet when it is through are cancelled as it reads them, and are not counted.

        Raises `ValueError` for a filter that cannot be read, and `NoLeaderError` when nothing was heard for `timeout`
        seconds: the command is stored all the same, and will be done.
        """
        asked = CancelMatching(
            where=self._link.filter(where), reason=reason, by=by or self._link.client_id, reply_to=new_client_id()
        )
        return await self._sweep(asked, pool, timeout)

    async def reprioritise_matching(
        self,
        where: TaskFilter | str,
        priority: TaskPriority,
        *,
        by: str | None = None,
        pool: str | None = None,
        timeout: float = SWEEP_S,
    ) -> int:
        """Give every live task that matches another priority; return how many. Otherwise as `cancel_matching`."""
        asked = ReprioritiseMatching(
            where=self._link.filter(where), priority=priority, by=by or self._link.client_id, reply_to=new_client_id()
        )
        return await self._sweep(asked, pool, timeout)

    async def _sweep(self, asked: CancelMatching | ReprioritiseMatching, pool: str | None, timeout: float) -> int:
        count = 0
        answers = self._link.answers(self._link.names(pool), asked, asked.reply_to or "", timeout)
        async with aclosing(answers):
            async for reply in answers:
                if reply.swept is not None:
                    count = reply.swept.count
                    if reply.swept.finished:
                        break
        return count

    async def reprioritise(self, task_ids: Iterable[str], priority: TaskPriority) -> None:
        """Ask that tasks have another priority; returns when the request is stored. Ended ones stay as they are.

        So do those that the leader has not accepted yet: `statuses` tells them from the others.
        """
        for names, part in self._link.parts(task_ids):
            await self._link.command(names, Reprioritise(task_ids=part, priority=priority))

    async def timeout(
        self,
        task_id: str,
        reason: str = "",
        *,
        attempt: int | None = None,
        by: str | None = None,
        timeout: float = ANSWER_S,
    ) -> OfTimeOut:
        """Declare the attempt of a running task overdue: it ends as if its `run_timeout` were over, at once.

        The task is tried again or FAILED, as its retry policy says; the answer has its status. The agent is told to
        stop the code, and what it still reports of the attempt does not count: a next attempt may begin before it has
        stopped. `attempt` is the one that is meant, the one that the ledger shows now if None, and no other is hit.

        Raises `NotRunningError` when that attempt does not run, `UnknownTaskError`, and `NoLeaderError` when nobody
        answers within `timeout` seconds: the command is stored, and will be done if the attempt still runs.
        """
        record = await self.get(task_id)
        meant = attempt or record.attempt
        if record.status is not TaskStatus.RUNNING or record.attempt != meant:
            raise NotRunningError(task_id, record.status, attempt)
        me = new_client_id()
        asked = TimeOutTask(task_id=task_id, attempt=meant, reason=reason, by=by or self._link.client_id, reply_to=me)
        told = (await self._link.question(self._link.names_of(task_id), asked, me, timeout)).timed_out
        if told is None:  # it has ended meanwhile
            raise NotRunningError(task_id, (await self.get(task_id)).status, attempt)
        if not told.done:
            raise NotRunningError(task_id, told.status, attempt)
        return told

    async def statuses(self, task_ids: Iterable[str]) -> dict[str, TaskStatus | None]:
        """Return the status of each task, None of those that the ledger does not have: hundreds in one round trip."""
        found: dict[str, TaskStatus | None] = {}
        for names, part in self._link.parts(dict.fromkeys(task_ids)):
            found |= await self._link.ask(self._link.view(names.pool).statuses(part))
        return found

    async def explain(self, task_id: str, *, timeout: float = ANSWER_S) -> Explanation:
        """Ask the leader why a task waits, in numbers, or why it is where it is; of an ended one its record tells.

        Raises `UnknownTaskError` for a task that was never accepted or is kept no more, and `NoLeaderError` when it has
        not ended and nobody answers within `timeout` seconds.
        """
        names = self._link.names_of(task_id)
        status = await self._link.ask(self._link.view(names.pool).status(task_id))
        if status is None or not status.terminal:
            me = new_client_id()
            asked = Explain(task_id=TaskId(task_id), reply_to=me)
            found = (await self._link.question(names, asked, me, timeout)).explanation
            if found is not None:
                return found
        return explanation_of(await self.get(task_id))  # it had ended, or has meanwhile

    async def plan(self, task: TaskCreate, *, timeout: float = ANSWER_S) -> Explanation:
        """Ask the leader what would become of a task if it were submitted now: who could run it, and what is missing.

        Raises `NoLeaderError` when nobody answers within `timeout` seconds.
        """
        names = self._link.names(task.pool)
        me = new_client_id()
        fields = TaskFields.model_validate(task.model_dump(include=set(TaskFields.model_fields)))
        found = (await self._link.question(names, Plan(task=fields, reply_to=me), me, timeout)).explanation
        assert found is not None, "a plan is always explained"  # noqa: S101 - what the leader's answer has
        return found

    async def list_tasks(
        self,
        status: TaskStatus | None = None,
        *,
        where: TaskFilter | str = "",
        limit: int = 100,
        pool: str | None = None,
        look_at: int = 100_000,
    ) -> TaskList:
        """Return at most `limit` tasks that match: in agents' hands, then waiting in their order, then ended ones.

        At most `look_at` records are read for it, of ended tasks the latest; `complete` of the list tells whether that
        was all there are. A status narrows what is read, and so do a reason and an instant of the end. Raises
        `ValueError` for a filter that cannot be read.
        """
        asked = self._link.filter(where)
        if status is not None:
            if asked.status and status not in asked.status:
                return TaskList()
            asked = asked.model_copy(update={"status": (status,)})
        return await self._link.ask(self._link.view(pool).tasks(asked, limit, look_at))

    async def children(self, task_id: str, *, limit: int = 100) -> list[Task]:
        """Return at most `limit` children of a task, the oldest first; they are listed as long as it is kept.

        `get` tells how many there are.
        """
        return await self._link.ask(self._link.view(task_pool(task_id)).children(task_id, limit))

    async def queue_status(self, pool: str | None = None) -> TaskQueueStatus:
        """Return how much waits and runs in a pool."""
        return await self._link.ask(self._link.view(pool).queue_status())
