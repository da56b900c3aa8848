"""Schedules as a client sees and steers them: `bus.schedules`."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Unpack

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError, to_json

from bus.errors import ScheduleError, UnknownScheduleError, first_problem
from bus.handle import TaskHandle
from bus.ids import ClientId, check_schedule_id, new_client_id
from bus.link import ANSWER_S, Link
from bus.messages import (
    MAX_SCHEDULE_BYTES,
    DeleteSchedule,
    Missed,
    Overlap,
    PauseSchedule,
    PutSchedule,
    Reply,
    ResumeSchedule,
    ScheduleCommand,
    ScheduleInfo,
    ScheduleSpec,
    TriggerSchedule,
)
from bus.names import PoolNames
from bus.records import TaskCreate

if TYPE_CHECKING:
    from bus.client import TaskOptions


class Schedules:
    """Tasks that are submitted again and again, by the leader of a pool.

    What changes a schedule returns when it is in force and stored. It raises `NoLeaderError` when nobody answers within
    `timeout` seconds; the wish is stored then, and a leader that comes fulfils it.
    """

    def __init__(self, link: Link, handle: Callable[[str], TaskHandle[Any]]) -> None:
        self._link = link
        self._handle = handle

    async def put(  # noqa: PLR0913 - when and what, in one call
        self,
        schedule_id: str,
        capability: str | Callable[..., Any],
        payload: object = None,
        *,
        cron: str | None = None,
        timezone: str = "UTC",
        every: float | timedelta | None = None,
        start: datetime | None = None,
        until: datetime | None = None,
        max_runs: int | None = None,
        overlap: Overlap | str = Overlap.SKIP,
        missed: Missed | str = Missed.LATEST,
        if_absent: bool = False,
        timeout: float = ANSWER_S,
        **options: "Unpack[TaskOptions]",
    ) -> ScheduleInfo:
        """Make a schedule, or let the one of its id be so from now on; return it as it is in force.

        It submits a task, given as to `Client.submit`, at the instants of `cron` (five fields, read by the clock of
        `timezone`) or `every` so many seconds from `start` on, else from now. With `overlap` it is said what a firing
        does while the task before it has not ended, with `missed` what becomes of firings that were due while nobody
        led or it was paused; docs/schedules.md has it in full. To put the same timing again delays nothing and keeps
        counts and a pause. With `if_absent` one that exists stays as it is, and is what is returned.

        Raises `ScheduleError`, which says what to write, `NoLeaderError` and `BusUnavailableError`.
        """
        pool, spec = schedule_of(
            schedule_id,
            {"capability": capability, "payload": payload, **options},
            cron=cron,
            timezone=None if timezone == "UTC" else timezone,
            every=every.total_seconds() if isinstance(every, timedelta) else every,
            start=instant_ms("start", start),
            until=instant_ms("until", until),
            max_runs=max_runs,
            overlap=overlap,
            missed=missed,
        )
        return await self.put_spec(spec, if_absent=if_absent, pool=pool, timeout=timeout)

    async def put_spec(
        self, spec: ScheduleSpec, *, if_absent: bool = False, pool: str | None = None, timeout: float = ANSWER_S
    ) -> ScheduleInfo:
        """Put a schedule that `schedule_of` has made; otherwise as `put`."""
        command = PutSchedule(schedule=spec, if_absent=if_absent, reply_to=new_client_id())
        return _in_force(await self._ask(self._link.names(pool), command, timeout))

    async def list(self, pool: str | None = None) -> "list[ScheduleInfo]":
        """Return every schedule of a pool, by id."""
        return await self._link.ask(self._link.view(pool).schedules())

    async def get(self, schedule_id: str, *, pool: str | None = None) -> ScheduleInfo:
        """Return one schedule. Raises `UnknownScheduleError`."""
        found = await self._link.ask(self._link.view(pool).schedule(checked(schedule_id)))
        if found is None:
            raise UnknownScheduleError(schedule_id, pool or self._link.pool)
        return found

    async def pause(
        self, schedule_id: str, reason: str = "", *, pool: str | None = None, timeout: float = ANSWER_S
    ) -> ScheduleInfo:
        """Let a schedule rest until it is resumed. Raises `UnknownScheduleError`."""
        command = PauseSchedule(id=checked(schedule_id), reason=reason[:1000], reply_to=new_client_id())
        return _in_force(await self._ask(self._link.names(pool), command, timeout))

    async def resume(self, schedule_id: str, *, pool: str | None = None, timeout: float = ANSWER_S) -> ScheduleInfo:
        """Let a schedule go on; what was due meanwhile goes by its `missed`. Raises `UnknownScheduleError`."""
        command = ResumeSchedule(id=checked(schedule_id), reply_to=new_client_id())
        return _in_force(await self._ask(self._link.names(pool), command, timeout))

    async def trigger(self, schedule_id: str, *, pool: str | None = None, timeout: float = ANSWER_S) -> TaskHandle[Any]:
        """Submit a schedule's task now, also of a paused one; return its handle.

        Raises `UnknownScheduleError`, and `ScheduleError` when its overlap is to skip and a task has not ended.
        """
        me = new_client_id()
        command = TriggerSchedule(id=checked(schedule_id), occasion=me, reply_to=me)
        task_id = (await self._ask(self._link.names(pool), command, timeout)).task_id
        assert task_id is not None, "a trigger that is no problem has made a task"  # noqa: S101 - what the leader answers
        return self._handle(task_id)

    async def delete(self, schedule_id: str, *, pool: str | None = None, timeout: float = ANSWER_S) -> None:
        """Forget a schedule; its tasks go on. Raises `UnknownScheduleError`."""
        command = DeleteSchedule(id=checked(schedule_id), reply_to=new_client_id())
        await self._ask(self._link.names(pool), command, timeout)

    async def _ask(self, names: PoolNames, command: ScheduleCommand, timeout: float) -> Reply:
        me = command.reply_to
        assert me is not None, "every command here is answered"  # noqa: S101 - as it is made above
        reply = await self._link.question(names, command, ClientId(me), timeout)
        if reply.unknown:
            assert not isinstance(command, PutSchedule), "to be put, none need exist"  # noqa: S101 - the same
            raise UnknownScheduleError(command.id, names.pool)
        if reply.problem is not None:
            raise ScheduleError(reply.problem)
        return reply


def schedule_of(schedule_id: str, task: dict[str, Any], **when: object) -> tuple[str | None, ScheduleSpec]:
    """Return the pool that is named, and what is to be put there; `when` are fields of `ScheduleSpec`, None for none.

    Raises `ScheduleError`.
    """
    try:
        asked = TaskCreate.model_validate(task)
        given = {name: asked.__dict__[name] for name in asked.model_fields_set - {"pool"}}
        said = {name: value for name, value in when.items() if value is not None}
        body = to_json({"id": schedule_id, **said, "task": given}, inf_nan_mode="constants", bytes_mode="base64")
        spec = ScheduleSpec.model_validate_json(body)
    except ValidationError as error:
        raise ScheduleError(first_problem(error)) from error
    except PydanticSerializationError as error:
        raise ScheduleError(f"the payload is not JSON: {error}") from error
    if len(body) > MAX_SCHEDULE_BYTES:
        raise ScheduleError(
            f"the schedule takes {len(body):,} bytes and the limit is {MAX_SCHEDULE_BYTES:,}: "
            "pass a reference to the data instead"
        )
    return asked.pool, spec


def _in_force(reply: Reply) -> ScheduleInfo:
    assert reply.schedule is not None, "what was done is shown"  # noqa: S101 - what the leader's answer has
    return reply.schedule


def checked(schedule_id: str) -> str:
    """Return what may be a schedule's id. Raises `ScheduleError`, which has the rule."""
    try:
        return check_schedule_id(schedule_id)
    except ValueError as error:
        raise ScheduleError(str(error)) from None


def instant_ms(name: str, given: datetime | None) -> int | None:
    """Return an instant as messages have it. Raises `ScheduleError` for one of no time zone."""
    if given is None:
        return None
    if given.tzinfo is None:
        raise ScheduleError(f"{name}: {given} is of no time zone: write e.g. datetime(2027, 1, 1, tzinfo=UTC)")
    return int(given.timestamp() * 1000)
