"""`callboard schedules`: tasks that are submitted again and again."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import App, Parameter

from bus.messages import Missed, Overlap, ScheduleInfo
from bus.recurrence import zone
from bus.schedule_operations import checked, schedule_of
from callboard.connecting import connected
from callboard.failures import UsageError
from callboard.moments import moment
from callboard.options import AsJson, Flag, RedisUrl, Seconds
from callboard.output import json_text, print_json, print_line, print_rows, print_table
from callboard.payloads import parse, read_file
from callboard.task_options import NO_OPTIONS, TaskOptions

schedules = App(
    name="schedules", help="Look at schedules, make, pause, trigger and delete them.", result_action="return_value"
)

_SHOWN: Final = 3
_Id = Annotated[str, Parameter(help="Id of the schedule.")]
_Pool = Annotated[str | None, Parameter(help="The schedule's pool.")]


@schedules.command(name="list")
async def list_schedules(*, pool: _Pool = None, redis_url: RedisUrl = None, json: AsJson = False) -> int:
    """List every schedule of the pool."""
    async with connected(redis_url, pool) as bus:
        found = await bus.schedules.list()
    if json:
        print_json([_json(info) for info in found])
        return 0
    print_table(
        ("id", "state", "next", "last", "fired", "skipped", "missed", "when", "capability"),
        (_row(info) for info in found),
        spare=("missed", "skipped", "fired", "last"),
        caption="" if found else "no schedules: `callboard schedules put --help` tells how to make one",
    )
    return 0


def _row(info: ScheduleInfo) -> tuple[object, ...]:
    progress = info.progress
    due = moment(progress.next_due) if info.state == "active" else None
    counts = progress.fired, progress.skipped, progress.missed
    return info.id, info.state, due, moment(progress.last_due), *counts, _when(info), info.spec.task.capability


def _when(info: ScheduleInfo) -> str:
    spec = info.spec
    return f"each {spec.every:g} s" if spec.every is not None else f"{spec.cron} {spec.timezone}"


def _json(info: ScheduleInfo) -> dict[str, Any]:
    return {"id": info.id, "state": info.state, **info.model_dump(mode="json"), "upcoming": _upcoming(info)}


def _upcoming(info: ScheduleInfo) -> list[str]:
    """Return the next instants by the clock of the schedule's time zone."""
    if info.state == "unreadable":
        return []
    where = zone(info.spec.timezone)
    return [
        datetime.fromtimestamp(at / 1000, where).isoformat(sep=" ", timespec="seconds") for at in info.upcoming(_SHOWN)
    ]


@schedules.command
async def get(schedule_id: _Id, /, *, pool: _Pool = None, redis_url: RedisUrl = None, json: AsJson = False) -> int:
    """Show everything that is known of a schedule, and when it is due next."""
    checked(schedule_id)
    async with connected(redis_url, pool) as bus:
        info = await bus.schedules.get(schedule_id)
    _show(info, as_json=json)
    return 0


def _show(info: ScheduleInfo, *, as_json: bool) -> None:
    if as_json:
        print_json(_json(info))
        return
    spec, progress = info.spec, info.progress
    rows: list[tuple[str, object]] = [
        ("state", info.state),
        ("reason", progress.reason),
        ("problem", progress.problem),
        ("when", _when(info)),
        *(("next" if n == 0 else "", at) for n, at in enumerate(_upcoming(info))),
        ("start", moment(spec.start)),
        ("until", moment(spec.until)),
        ("max runs", spec.max_runs),
        ("overlap", spec.overlap),
        ("missed ones", spec.missed),
        ("last due", moment(progress.last_due)),
        ("last task", progress.last_task),
        ("fired", progress.fired),
        ("triggered", progress.triggered),
        ("skipped", progress.skipped),
        ("replaced", progress.replaced),
        ("missed", progress.missed),
        ("created", moment(progress.created_at)),
        ("task", json_text(spec.task.model_dump(mode="json", exclude_unset=True))),
    ]
    print_rows(f"schedule {info.id}", rows)


@schedules.command
async def put(  # noqa: PLR0913 - one per option
    schedule_id: _Id,
    capability: Annotated[str, Parameter(help="Capability that is to do it, e.g. 'translate>=2[lang contains de]'.")],
    payload: Annotated[str | None, Parameter(allow_leading_hyphen=True, help="Payload as JSON.")] = None,
    /,
    *,
    cron: Annotated[
        str | None, Parameter(help="Minute, hour, day of month, month, day of week, e.g. '0 3 * * MON-FRI'.")
    ] = None,
    timezone: Annotated[str, Parameter(help="By whose clock, e.g. Europe/Berlin.")] = "UTC",
    every: Annotated[Seconds | None, Parameter(help="Or: so much time from one to the next.")] = None,
    start: Annotated[
        datetime | None, Parameter(help="Not before, e.g. 2027-01-01T00:00:00Z; --every counts from it.")
    ] = None,
    until: Annotated[datetime | None, Parameter(help="Not after.")] = None,
    max_runs: Annotated[int | None, Parameter(help="How often at most.")] = None,
    overlap: Annotated[Overlap, Parameter(help="If the task before it has not ended.")] = Overlap.SKIP,
    missed: Annotated[Missed, Parameter(help="What was due while nobody led, or it was paused.")] = Missed.LATEST,
    if_absent: Annotated[Flag, Parameter(help="Leave one that exists as it is.")] = False,
    file: Annotated[Path | None, Parameter(help="File that holds the payload.")] = None,
    asked: TaskOptions = NO_OPTIONS,
    pool: _Pool = None,
    redis_url: RedisUrl = None,
    json: AsJson = False,
) -> int:
    """Make a schedule, or let the one of this id be so from now on, and say when it is due next."""
    options = asked.fields()
    when: dict[str, Any] = {
        "cron": cron,
        "timezone": timezone,
        "every": every,
        "max_runs": max_runs,
        "overlap": overlap,
        "missed": missed,
    }
    found = _payload(payload, file)
    schedule_of(schedule_id, {"capability": capability, "payload": found, **options}, **when)  # before a server is met
    when |= {"start": _aware(start), "until": _aware(until), "if_absent": if_absent}
    async with connected(redis_url, pool) as bus:
        info = await bus.schedules.put(schedule_id, capability, found, **when, **options)
    if json:
        print_json(_json(info))
        return 0
    due = _upcoming(info)
    print_line(f"schedule {info.id} is {info.state}" + (", due at" if due else ""))
    for at in due:
        print_line(f"  {at}")
    return 0


def _payload(argument: str | None, file: Path | None) -> Any:  # noqa: ANN401 - JSON
    if argument is not None and file is not None:
        raise UsageError("the payload is given twice: as an argument, and by --file; leave one out")
    if file is not None:
        return parse(read_file(file), str(file))
    return None if argument is None else parse(argument, "the payload")


def _aware(at: datetime | None) -> datetime | None:
    """Take an instant without a time zone for one of this machine's clock, as people mean it."""
    return None if at is None else at.astimezone(UTC)


@schedules.command
async def pause(
    schedule_id: _Id,
    /,
    *,
    reason: Annotated[str, Parameter(help="Kept with the schedule.")] = "",
    pool: _Pool = None,
    redis_url: RedisUrl = None,
    json: AsJson = False,
) -> int:
    """Let a schedule rest until it is resumed."""
    checked(schedule_id)
    async with connected(redis_url, pool) as bus:
        info = await bus.schedules.pause(schedule_id, reason)
    _done(info, f"schedule {schedule_id} is {info.state}", as_json=json)
    return 0


@schedules.command
async def resume(schedule_id: _Id, /, *, pool: _Pool = None, redis_url: RedisUrl = None, json: AsJson = False) -> int:
    """Let a paused schedule go on."""
    checked(schedule_id)
    async with connected(redis_url, pool) as bus:
        info = await bus.schedules.resume(schedule_id)
    _done(info, f"schedule {schedule_id} is {info.state}", as_json=json)
    return 0


@schedules.command
async def trigger(schedule_id: _Id, /, *, pool: _Pool = None, redis_url: RedisUrl = None, json: AsJson = False) -> int:
    """Submit a schedule's task now, also of a paused one, and print the task's id."""
    checked(schedule_id)
    async with connected(redis_url, pool) as bus:
        handle = await bus.schedules.trigger(schedule_id)
    if json:
        print_json({"schedule": schedule_id, "id": handle.id})
    else:
        print_line(handle.id)
    return 0


@schedules.command
async def delete(schedule_id: _Id, /, *, pool: _Pool = None, redis_url: RedisUrl = None, json: AsJson = False) -> int:
    """Forget a schedule. Its tasks go on."""
    checked(schedule_id)
    async with connected(redis_url, pool) as bus:
        await bus.schedules.delete(schedule_id)
    if json:
        print_json({"schedule": schedule_id, "deleted": True})
    else:
        print_line(f"schedule {schedule_id} is deleted")
    return 0


def _done(info: ScheduleInfo, text: str, *, as_json: bool) -> None:
    if as_json:
        print_json(_json(info))
    else:
        print_line(text)
