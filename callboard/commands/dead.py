"""`callboard dead`: look at dead letters, requeue and purge them."""

from typing import Annotated

from cyclopts import App, Parameter
from cyclopts.validators import Number

from bus.messages import OfDead, TaskError
from bus.records import AttemptRecord, Requeued, Task, TaskInDB
from bus.states import TaskPriority
from callboard.connecting import check_task_id, connected
from callboard.failures import FAILED, CommandError
from callboard.filter_options import NO_ENDED_FILTER, All, EndedFilterOptions, which
from callboard.moments import ago, moment
from callboard.options import AsJson, Flag, RedisUrl
from callboard.output import json_text, print_json, print_line, print_rows, print_table
from callboard.user import By, user

dead = App(name="dead", help="Look at tasks that have failed, requeue and purge them.", result_action="return_value")

_Pool = Annotated[str | None, Parameter(help="Pool to look at.")]
_TaskIds = Annotated[list[str] | None, Parameter(help="Ids of dead letters; else conditions say which.")]


@dead.command(name="list")
async def list_dead(
    *,
    where: EndedFilterOptions = NO_ENDED_FILTER,
    limit: Annotated[int, Parameter(validator=Number(gte=1, lte=100_000), help="At most so many.")] = 20,
    pool: _Pool = None,
    redis_url: RedisUrl = None,
    json: AsJson = False,
) -> int:
    """List dead letters, the latest first."""
    asked = where.filter()
    async with connected(redis_url, pool) as bus:
        found = await bus.dead.list(asked, limit=limit)
        if json:
            print_json(list(found))
            return 0
        total = (await bus.queue_status()).dead
    print_table(
        ("id", "capability", "reason", "attempts", "agent", "ended", "error"),
        (_row(task) for task in found),
        spare=("agent", "attempts"),
        caption=f"{len(found):,} of {total:,} dead letters in pool {bus.pool}",
    )
    return 0


def _row(task: Task) -> tuple[object, ...]:
    error = "" if task.error is None else f"{task.error.type}: {task.error.message}"
    ended = ago(task.finished_at)
    return task.id, task.capability, task.reason, task.attempt, task.agent_id, ended, " ".join(error.split())


@dead.command
async def show(
    task_ids: Annotated[list[str], Parameter(help="Ids of dead letters.")],
    /,
    *,
    redis_url: RedisUrl = None,
    json: AsJson = False,
) -> int:
    """Show all that is known of dead letters: every attempt with its agent, its times and its error."""
    for task_id in task_ids:
        check_task_id(task_id)
    async with connected(redis_url) as bus:
        found = [await bus.dead.get(task_id) for task_id in task_ids]
    if json:
        print_json(found[0] if len(found) == 1 else found)
        return 0
    for task in found:
        print_rows(f"task {task.id}", _rows(task))
    return 0


def _rows(task: TaskInDB) -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = [
        ("failed as", task.reason),
        ("error", None if task.attempts and task.attempts[-1].error == task.error else _error(task.error)),
        ("capability", " ".join(part for part in (task.capability, task.spec.version) if part)),
        ("priority", task.priority),
        ("tags", ", ".join(task.tags)),
        ("metadata", json_text(task.metadata) if task.metadata else None),
        ("enqueued", moment(task.enqueued_at)),
        ("failed", moment(task.finished_at)),
        ("payload", json_text(task.spec.payload)),
    ]
    lives = list(task.requeues)
    for past in task.attempts:
        while lives and lives[0].attempt < past.attempt:
            rows.append(_life(lives.pop(0)))
        rows.append((f"attempt {past.attempt}", _attempt(past)))
    return rows + [_life(life) for life in lives]


def _life(past: Requeued) -> tuple[str, object]:
    failure = f"failed as {past.reason} at {moment(past.ended_at)}"
    why = f": {past.why}" if past.why else ""
    by = f" by {past.by}" if past.by else ""
    lines = [f"{moment(past.at)}{by}{why}", failure, _error(past.error)]
    return "requeued", "\n".join(line for line in lines if line)


def _attempt(past: AttemptRecord) -> str:
    began = "not begun" if past.started_at is None else f"begun {moment(past.started_at)}"
    lines = [
        f"{past.outcome} on {past.agent_id}",
        f"assigned {moment(past.assigned_at)}, {began}, ended {moment(past.ended_at)}",
        _error(past.error),
    ]
    return "\n".join(line for line in lines if line)


def _error(error: TaskError | None) -> str | None:
    if error is None:
        return None
    details = json_text(error.details) if error.details else ""
    return "\n".join(part for part in (f"{error.type}: {error.message}", details, error.traceback) if part).rstrip()


@dead.command
async def requeue(  # noqa: PLR0913 - one per option
    task_ids: _TaskIds = None,
    /,
    *,
    where: EndedFilterOptions = NO_ENDED_FILTER,
    everything: All = False,
    priority: Annotated[TaskPriority | None, Parameter(help="How urgent they are now; else as they were.")] = None,
    reason: Annotated[str, Parameter(help="Kept with the tasks.")] = "",
    by: By = None,
    pool: _Pool = None,
    redis_url: RedisUrl = None,
    json: AsJson = False,
) -> int:
    """Give dead letters a new life: the same tasks wait for an agent again, all their attempts before them.

    Some by their ids, or all that meet the conditions. The exit code is 1 if one that was given by its id is not
    requeued.
    """
    asked = which(task_ids, where.filter(), everything=everything, command="requeue")
    for task_id in task_ids or ():
        check_task_id(task_id)
    async with connected(redis_url, pool) as bus:
        told = await bus.dead.requeue(task_ids or (), where=asked, priority=priority, reason=reason, by=by or user())
    return _tell(told, "requeued", by_id=asked is None, as_json=json)


@dead.command
async def purge(
    task_ids: _TaskIds = None,
    /,
    *,
    where: EndedFilterOptions = NO_ENDED_FILTER,
    everything: All = False,
    yes: Annotated[Flag, Parameter(help="Do it; else only say how many it would be.")] = False,
    by: By = None,
    pool: _Pool = None,
    redis_url: RedisUrl = None,
    json: AsJson = False,
) -> int:
    """Delete dead letters for good, with all that is known of them.

    Some by their ids, or all that meet the conditions. Without --yes nothing is deleted, and the exit code is 1.
    """
    asked = which(task_ids, where.filter(), everything=everything, command="purge")
    for task_id in task_ids or ():
        check_task_id(task_id)
    async with connected(redis_url, pool) as bus:
        if not yes:
            number = len(set(task_ids or ())) if asked is None else await bus.dead.count(asked)
            if json:
                print_json({"would_purge": number})
            plural = "s" * (number != 1)
            raise CommandError(f"{number:,} dead letter{plural} would be deleted for good: add --yes to do it")
        told = await bus.dead.purge(task_ids or (), where=asked, by=by or user())
    return _tell(told, "purged", by_id=asked is None, as_json=json)


def _tell(told: OfDead, verb: str, *, by_id: bool, as_json: bool) -> int:
    amiss = {
        "not dead": told.not_dead,
        "unknown": told.unknown,
        "refused, for its submission was wrong and cannot run": told.refused,
    }
    if as_json:
        print_json(
            {verb: told.done, "not_dead": told.not_dead, "unknown": told.unknown, "refused": told.refused},
        )
    else:
        print_line(f"{verb} {len(told.done):,} dead letter{'s' * (len(told.done) != 1)}")
        for what, ids in amiss.items():
            for task_id in ids if by_id else ():
                print_line(f"{task_id} is {what}")
            if ids and not by_id:
                print_line(f"{len(ids):,} {'are' if len(ids) > 1 else 'is'} {what}")
    return FAILED if by_id and any(amiss.values()) else 0
