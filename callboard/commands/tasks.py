"""`callboard tasks`: look at tasks, fetch results, cancel."""

from typing import Annotated, Final

from cyclopts import App, Parameter
from cyclopts.validators import Number

from bus.cancelling import DONE_S, CancelReport
from bus.explanations import Explanation
from bus.ids import task_pool
from bus.records import Cancellation, Task, TaskInDB
from bus.states import TaskPriority, TaskStatus
from callboard.connecting import check_task_id, connected
from callboard.failures import FAILED, UsageError
from callboard.filter_options import NO_ENDED_FILTER, NO_FILTER, All, EndedFilterOptions, FilterOptions, which
from callboard.moments import ago, moment
from callboard.options import AsJson, Flag, RedisUrl, Seconds
from callboard.outcomes import show_outcome
from callboard.output import json_text, print_json, print_line, print_rows, print_table
from callboard.task_options import NO_PLACEMENT, PlacementOptions, task_of
from callboard.user import By, user

tasks = App(name="tasks", help="Look at tasks, fetch their results, cancel them.", result_action="return_value")

_Pool = Annotated[str | None, Parameter(help="Pool to look at.")]
_TaskId = Annotated[str, Parameter(help="Id of the task.")]
_UNKNOWN: Final = "is not known: it was never submitted, is not read yet, or its retention is over"


@tasks.command(name="list")
async def list_tasks(
    *,
    status: Annotated[TaskStatus | None, Parameter(help="Only tasks of this status.")] = None,
    where: EndedFilterOptions = NO_ENDED_FILTER,
    parent: Annotated[str | None, Parameter(help="Only children of this task, the oldest first.")] = None,
    limit: Annotated[int, Parameter(validator=Number(gte=1, lte=100_000), help="At most so many.")] = 20,
    pool: _Pool = None,
    redis_url: RedisUrl = None,
    json: AsJson = False,
) -> int:
    """List tasks: those in agents' hands, then those that wait, in their order, then those that have ended.

    Of all that meet the conditions. At most 100,000 tasks are looked at, of those that have ended the latest.
    """
    asked = where.filter()
    if parent is not None:
        check_task_id(parent)
        if status is not None or not asked.empty:
            raise UsageError("--parent lists all children: leave out --status and the other conditions")
        pool = task_pool(parent)
    async with connected(redis_url, pool) as bus:
        found = (
            await bus.list_tasks(status, where=asked, limit=limit)
            if parent is None
            else await bus.children(parent, limit=limit)
        )
        if json:
            print_json(list(found))
            return 0
        queue = await bus.queue_status()
    waiting = f"{queue.waiting:,} waiting, {queue.delayed:,} delayed, {queue.unread:,} unread"
    print_table(
        ("id", "capability", "status", "priority", "attempt", "agent", "enqueued", "what"),
        (_row(task) for task in found),
        spare=("enqueued", "agent", "priority", "attempt"),
        caption=f"{waiting}, {queue.active:,} active, {queue.dead:,} dead in pool {queue.pool}",
    )
    return 0


def _row(task: Task) -> tuple[object, ...]:
    if task.status is TaskStatus.RUNNING:
        progress = "" if task.progress is None else f"{task.progress:.0%}"
        what = f"{progress} {task.note or ''}"
    else:
        what = (task.error.message if task.error else "") or task.reason or ""
    attempt = f"{task.attempt - task.uncounted}/{task.max_attempts}"
    at = ago(task.enqueued_at)
    return task.id, task.capability, task.status, task.priority, attempt, task.agent_id, at, " ".join(what.split())


@tasks.command
async def get(task_id: _TaskId, /, *, redis_url: RedisUrl = None, json: AsJson = False) -> int:
    """Show everything that is known of a task; of a waiting one also why it waits."""
    check_task_id(task_id)
    async with connected(redis_url) as bus:
        task = await bus.get(task_id)
    if json:
        print_json(task)
    else:
        print_rows(f"task {task.id}", _rows(task))
    return 0


def _rows(task: TaskInDB) -> list[tuple[str, object]]:
    runs = task.status is TaskStatus.RUNNING
    rows: list[tuple[str, object]] = [
        ("status", task.status),
        ("waits because", task.waiting_because),
        ("placed because", task.placed_because),
        ("reason", task.reason),
        ("error", f"{task.error.type}: {task.error.message}" if task.error else None),
        ("cancel", _cancel(task.cancellation)),
        ("capability", " ".join(part for part in (task.capability, task.spec.version) if part)),
        ("priority", task.priority),
        ("attempt", _attempt(task)),
        ("agent", task.agent_id),
        ("progress", f"{task.progress:.0%}" if runs and task.progress is not None else None),
        ("note" if runs else "last note", task.note),
        ("enqueued", moment(task.enqueued_at)),
        ("not before", moment(task.not_before)),
        ("assigned", moment(task.assigned_at)),
        ("started", moment(task.started_at)),
        ("finished", moment(task.finished_at)),
        ("parent", task.parent),
        ("depth", task.depth or None),
        ("trace", task.trace),
        ("children", task.children or None),
        ("waits", "for its children, without its slots" if task.waiting else None),
        ("schedule", task.schedule and f"{task.schedule.id}, due {moment(task.schedule.due)}"),
        ("tags", ", ".join(task.tags)),
        ("metadata", json_text(task.metadata) if task.metadata else None),
        ("payload", json_text(task.spec.payload)),
        ("output", json_text(task.output) if task.status is TaskStatus.COMPLETED else None),
    ]
    for past in task.attempts:
        error = f", {past.error.type}: {past.error.message}" if past.error else ""
        rows.append((f"attempt {past.attempt}", f"{past.outcome} on {past.agent_id}{error}"))
    return rows


def _attempt(task: TaskInDB) -> str | None:
    """Say how many of the allowed attempts there were, in this life of the task, and which one it is in all."""
    if not task.attempt:
        return None
    counted = f"{task.attempt - task.uncounted} of {task.max_attempts}"
    return f"{counted} ({task.attempt} in all)" if task.uncounted else counted


def _cancel(cancel: Cancellation | None) -> str | None:
    """Say how far a cancel is, step by step, with the time each took from its request on."""
    if cancel is None:
        return None
    by = f" by {cancel.by}" if cancel.by else ""
    steps = [f"requested {moment(cancel.requested_at)}{by}{f' ({cancel.reason})' if cancel.reason else ''}"]
    for what, at in (("delivered", cancel.delivered_at), ("acknowledged", cancel.acknowledged_at)):
        if at is not None:
            steps.append(f"{what} after {(at - cancel.requested_at) / 1000:.1f} s")
    if cancel.outcome is not None:
        steps.append(cancel.outcome.replace("_", " "))
    return "; ".join(steps)


@tasks.command
async def result(
    task_id: _TaskId,
    /,
    *,
    timeout: Annotated[Seconds | None, Parameter(help="How long to wait for it; else as long as it takes.")] = None,
    redis_url: RedisUrl = None,
    json: AsJson = False,
) -> int:
    """Print the output of a task, waiting until it has ended. The exit code is 1 if it failed or was cancelled."""
    check_task_id(task_id)
    async with connected(redis_url) as bus:
        return await show_outcome(bus.handle(task_id), timeout=timeout, as_json=json)


@tasks.command
async def cancel(  # noqa: PLR0913 - one per option
    task_ids: Annotated[list[str] | None, Parameter(help="Ids of the tasks; else conditions say which.")] = None,
    /,
    *,
    status: Annotated[TaskStatus | None, Parameter(help="Only tasks of this status.")] = None,
    where: FilterOptions = NO_FILTER,
    everything: All = False,
    reason: Annotated[str, Parameter(help="Kept with the tasks.")] = "",
    by: By = None,
    grace: Annotated[Seconds | None, Parameter(help="How long their code may take to stop; else 5 s.")] = None,
    wait: Annotated[Flag, Parameter(help="Wait until they have stopped, and say what has come of each.")] = False,
    timeout: Annotated[Seconds, Parameter(help="How long to wait.")] = DONE_S,
    pool: _Pool = None,
    redis_url: RedisUrl = None,
    json: AsJson = False,
) -> int:
    """Ask that tasks be cancelled. Those that have ended stay as they are.

    Some by their ids, or all that meet the conditions and were submitted before: then it is waited until all are told.
    With --wait the exit code is 1 unless all of them have stopped.
    """
    asked = which(task_ids, where.filter(status), everything=everything, command="cancel")
    for task_id in task_ids or ():
        check_task_id(task_id)
    by = by or user()
    async with connected(redis_url, pool) as bus:
        if asked is not None:
            number = await bus.cancel_matching(asked, reason, by=by)
            _tell_number("cancel", "cancelled", number, as_json=json)
            return 0
        if wait:
            return _show_cancelled(
                await bus.cancel_and_wait(task_ids or (), reason, by=by, grace=grace, timeout=timeout), as_json=json
            )
        await bus.cancel(task_ids or (), reason, by=by, grace=grace)
    task_ids = task_ids or []
    if json:
        print_json({"requested": "cancel", "ids": task_ids})
    else:
        print_line(f"asked for {len(task_ids)} task{'s' * (len(task_ids) != 1)} to be cancelled")
    return 0


def _show_cancelled(report: CancelReport, *, as_json: bool) -> int:
    """Print what has come of a cancel; return the exit code."""
    if as_json:
        print_json(report)
    else:
        words = [
            *((task_id, "cancelled") for task_id in report.cancelled),
            *((task_id, f"had ended as {status}") for task_id, status in report.over.items()),
            *((task_id, "given up: it did not stop, and may still run") for task_id in report.given_up),
            *((task_id, "is not stopped yet") for task_id in report.under_way),
            *((task_id, f"{_UNKNOWN}; if it is still unread, it will be cancelled") for task_id in report.unknown),
        ]
        for task_id, what in words:
            print_line(f"{task_id} {what}")
    return FAILED if report.given_up or report.under_way or report.unknown else 0


@tasks.command
async def timeout(
    task_id: _TaskId,
    /,
    *,
    attempt: Annotated[int | None, Parameter(help="The attempt that is meant; else the one that runs now.")] = None,
    reason: Annotated[str, Parameter(help="Kept with the task.")] = "",
    by: Annotated[str | None, Parameter(help="Who wants it; else your name on this machine.")] = None,
    redis_url: RedisUrl = None,
    json: AsJson = False,
) -> int:
    """Declare the running attempt of a task overdue: it is stopped, and tried again or failed by its retry policy.

    Exactly as if its run_timeout were over. The exit code is 1 if it does not run.
    """
    check_task_id(task_id)
    async with connected(redis_url) as bus:
        told = await bus.timeout(task_id, reason, attempt=attempt, by=by or user())
    if json:
        print_json({"id": task_id, **told.model_dump(exclude={"done"})})
    else:
        print_line(f"attempt {told.attempt} of {task_id} has timed out; the task is {told.status}")
    return 0


@tasks.command
async def reprioritise(
    priority: Annotated[TaskPriority, Parameter(help="How urgent they are now.")],
    task_ids: Annotated[list[str] | None, Parameter(help="Ids of the tasks; else conditions say which.")] = None,
    /,
    *,
    status: Annotated[TaskStatus | None, Parameter(help="Only tasks of this status.")] = None,
    where: FilterOptions = NO_FILTER,
    everything: All = False,
    pool: _Pool = None,
    redis_url: RedisUrl = None,
    json: AsJson = False,
) -> int:
    """Ask that tasks have another priority. Those that have ended stay as they are.

    Some by their ids, or all that meet the conditions and were submitted before: then it is waited until they all have.
    Of those given by their ids it is said which are not live; the exit code is 1 if none is.
    """
    asked = which(task_ids, where.filter(status), everything=everything, command="reprioritise")
    for task_id in task_ids or ():
        check_task_id(task_id)
    async with connected(redis_url, pool) as bus:
        if asked is not None:
            number = await bus.reprioritise_matching(asked, priority)
            _tell_number("reprioritise", f"made {priority}", number, as_json=json)
            return 0
        statuses = await bus.statuses(task_ids or ())
        live = [task_id for task_id, status in statuses.items() if status is not None and not status.terminal]
        unknown = [task_id for task_id, status in statuses.items() if status is None]
        await bus.reprioritise([*live, *unknown], priority)  # these may be read by then
    over = {task_id: status for task_id, status in statuses.items() if status is not None and status.terminal}
    if json:
        print_json({"requested": "reprioritise", "priority": priority, "ids": live, "over": over, "unknown": unknown})
    else:
        if live:
            print_line(f"asked for {len(live)} task{'s' * (len(live) != 1)} to be {priority}")
        for task_id, ended_as in over.items():
            print_line(f"{task_id} has ended as {ended_as}")
        for task_id in unknown:
            print_line(f"{task_id} {_UNKNOWN}")
    return 0 if live else FAILED


def _tell_number(command: str, done: str, number: int, *, as_json: bool) -> None:
    if as_json:
        print_json({"requested": command, "count": number})
    else:
        print_line(f"{number:,} task{'s' * (number != 1)} {done}")


@tasks.command
async def explain(task_id: _TaskId, /, *, redis_url: RedisUrl = None, json: AsJson = False) -> int:
    """Say why a task waits, in numbers, why it is where it is, or how it ended.

    Only a dispatcher that leads can answer, unless the task has ended.
    """
    check_task_id(task_id)
    async with connected(redis_url) as bus:
        found = await bus.explain(task_id)
    _show_explanation(found, as_json=json)
    return 0


@tasks.command
async def plan(
    capability: Annotated[str, Parameter(help="What it requires: `text.count`, `translate>=2[lang contains de]`.")],
    /,
    *,
    asked: PlacementOptions = NO_PLACEMENT,
    pool: _Pool = None,
    redis_url: RedisUrl = None,
    json: AsJson = False,
) -> int:
    """Say what would become of a task if it were submitted now, without submitting it."""
    task = task_of(capability, None, asked.fields(), command="tasks plan")
    async with connected(redis_url, pool) as bus:
        found = await bus.plan(task)
    _show_explanation(found, as_json=json)
    return 0


def _show_explanation(found: Explanation, *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    rows: list[tuple[str, object]] = [("status", found.status), ("why", found.text)]
    rows += [("agents", f"{group.count} {group.why}") for group in found.groups]
    print_rows(f"task {found.task_id}" if found.task_id else "such a task", rows)
