"""Cancelling tasks and waiting for what comes of it, task by task."""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import aclosing
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

from bus.handle import TaskHandle
from bus.ids import new_client_id
from bus.link import ANSWER_S, Link
from bus.messages import CancelTasks, OfCancel
from bus.names import PoolNames
from bus.states import TaskStatus

DONE_S: Final = 15.0
"""How long to wait for agents: twice their grace, and some."""


class CancelReport(BaseModel):
    """What has come of a cancel: each task is in one of these."""

    model_config = ConfigDict(frozen=True)

    cancelled: tuple[str, ...] = Field((), description="CANCELLED; nothing of them runs any more.")
    given_up: tuple[str, ...] = Field((), description="CANCELLED, and their code may still run: it did not stop.")
    over: dict[str, TaskStatus] = Field(
        default_factory=dict, description="Ended before, or before their agents were told: as what."
    )
    unknown: tuple[str, ...] = Field(
        (), description="The ledger has no such tasks; those submitted and still unread are cancelled when read."
    )
    under_way: tuple[str, ...] = Field((), description="Their agents have been told, and have not stopped them yet.")


async def cancel_and_wait(
    link: Link,
    handle_of: Callable[[str], TaskHandle[Any]],
    task_ids: Iterable[str],
    *,
    reason: str,
    by: str,
    grace: float | None,
    timeout: float,
) -> CancelReport:
    """Cancel, and return what has come of it after `timeout` seconds at the latest; see `Client.cancel_and_wait`."""
    return await settled(await begun(link, task_ids, reason=reason, by=by, grace=grace), handle_of, timeout)


async def begun(
    link: Link, task_ids: Iterable[str], *, reason: str, by: str, grace: float | None = None
) -> CancelReport:
    """Cancel, and return what has come of it when the leader has taken it. Raises `NoLeaderError`."""
    cancelled: list[str] = []
    not_live: list[tuple[PoolNames, str]] = []
    under_way: list[str] = []
    for names, ids in link.parts(dict.fromkeys(task_ids)):
        asked = CancelTasks(task_ids=ids, reason=reason, by=by, grace=grace, reply_to=new_client_id())
        told = await _told(link, names, asked)
        cancelled += told.ended
        not_live += ((names, task_id) for task_id in told.not_live)
        under_way += told.under_way
    over, unknown = await _over(link, not_live)
    return CancelReport(cancelled=tuple(cancelled), over=over, unknown=tuple(unknown), under_way=tuple(under_way))


async def settled(report: CancelReport, handle_of: Callable[[str], TaskHandle[Any]], timeout: float) -> CancelReport:
    """Return the report with what comes, within `timeout` seconds, of the tasks that are under way in it."""
    cancelled, given_up, over = list(report.cancelled), list(report.given_up), dict(report.over)
    ended = await _ended([handle_of(task_id) for task_id in report.under_way], timeout)
    for handle in ended:
        outcome = handle.waiter.outcome.result()
        if outcome.status is not TaskStatus.CANCELLED:
            over[handle.id] = outcome.status
        elif outcome.given_up:
            given_up.append(handle.id)
        else:
            cancelled.append(handle.id)
    told = {handle.id for handle in ended}
    return CancelReport(
        cancelled=tuple(cancelled),
        given_up=tuple(given_up),
        over=over,
        unknown=report.unknown,
        under_way=tuple(task_id for task_id in report.under_way if task_id not in told),
    )


async def _told(link: Link, names: PoolNames, asked: CancelTasks) -> OfCancel:
    """Send one command; return its answers together: it may be taken in parts, and a part twice."""
    left = set[str](asked.task_ids)
    found: dict[str, list[str]] = {"ended": [], "under_way": [], "not_live": []}
    async with aclosing(link.answers(names, asked, asked.reply_to or "", ANSWER_S)) as answers:
        async for reply in answers:
            for step, ids in (reply.cancel or OfCancel()).model_dump().items():
                found[step] += (task_id for task_id in ids if task_id in left)
                left.difference_update(ids)
            if not left:
                break
    return OfCancel.model_validate(found)


async def _over(link: Link, tasks: list[tuple[PoolNames, str]]) -> tuple[dict[str, TaskStatus], list[str]]:
    """Tell those that have ended from those that nobody knows."""
    over: dict[str, TaskStatus] = {}
    unknown: list[str] = []
    by_pool: dict[PoolNames, list[str]] = {}
    for names, task_id in tasks:
        by_pool.setdefault(names, []).append(task_id)
    for names, ids in by_pool.items():
        for task_id, status in (await link.ask(link.view(names.pool).statuses(ids))).items():
            if status is None:
                unknown.append(task_id)
            else:
                over[task_id] = status
    return over, unknown


async def _ended(handles: list[TaskHandle[Any]], timeout: float) -> list[TaskHandle[Any]]:
    """Return those whose tasks end within `timeout` seconds, as they end."""
    for handle in handles:
        handle.listen()
    if handles:
        await asyncio.wait([handle.waiter.outcome for handle in handles], timeout=timeout)
    return [handle for handle in handles if handle.waiter.done]
