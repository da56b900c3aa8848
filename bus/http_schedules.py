"""Schedules over HTTP: `HttpClient.schedules`."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Unpack

from bus.handle import TaskHandle
from bus.http_link import About, HttpLink
from bus.messages import Missed, Overlap, ScheduleInfo
from bus.messages.schedules import AS_STORED
from bus.schedule_operations import checked, instant_ms, schedule_of

if TYPE_CHECKING:
    import builtins

    from bus.client import TaskOptions

PAGE = 100


class HttpSchedules:
    """As `bus.schedule_operations.Schedules`, over HTTP."""

    def __init__(self, link: HttpLink, handle: Callable[[str], TaskHandle[Any]]) -> None:
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
        **options: "Unpack[TaskOptions]",
    ) -> ScheduleInfo:
        """Make a schedule, or let the one of its id be so from now on; see `Schedules.put`."""
        pool, spec = schedule_of(
            checked(schedule_id),
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
        body = spec.model_dump(mode="json", exclude={"id"}, exclude_unset=True)
        body["task"] = {name: value for name, value in body["task"].items() if name != "v"}
        return _shown(await self._ask("PUT", schedule_id, pool, body=body, if_absent=if_absent))

    async def list(self, pool: str | None = None) -> "builtins.list[ScheduleInfo]":
        """Return every schedule of a pool, by id."""
        found: builtins.list[ScheduleInfo] = []
        cursor: str | None = None
        while True:
            told = await self._link.ask("GET", "/schedules", limit=PAGE, cursor=cursor, pool=pool or self._link.pool)
            found += [_shown(one) for one in told["schedules"]]
            cursor = told["next"]
            if cursor is None:
                return found

    async def get(self, schedule_id: str, *, pool: str | None = None) -> ScheduleInfo:
        """Return one schedule. Raises `UnknownScheduleError`."""
        return _shown(await self._ask("GET", schedule_id, pool))

    async def pause(self, schedule_id: str, reason: str = "", *, pool: str | None = None) -> ScheduleInfo:
        """Let a schedule rest until it is resumed. Raises `UnknownScheduleError`."""
        return _shown(await self._ask("POST", schedule_id, pool, "/pause", body={"reason": reason[:1000]}))

    async def resume(self, schedule_id: str, *, pool: str | None = None) -> ScheduleInfo:
        """Let a schedule go on; what was due meanwhile goes by its `missed`. Raises `UnknownScheduleError`."""
        return _shown(await self._ask("POST", schedule_id, pool, "/resume"))

    async def trigger(self, schedule_id: str, *, pool: str | None = None) -> TaskHandle[Any]:
        """Submit a schedule's task now; see `Schedules.trigger`.

        It is not sent again when its answer is lost: then `ApiUnavailableError` is raised, and it may be submitted.
        """
        told = await self._ask("POST", schedule_id, pool, "/trigger", repeatable=False)
        return self._handle(told["task_id"])

    async def delete(self, schedule_id: str, *, pool: str | None = None) -> None:
        """Forget a schedule; its tasks go on. Raises `UnknownScheduleError`."""
        await self._ask("DELETE", schedule_id, pool)

    async def _ask(self, method: str, schedule_id: str, pool: str | None, verb: str = "", **more: Any) -> Any:  # noqa: ANN401 - JSON
        about = About(schedule_id=schedule_id, pool=pool or self._link.pool)
        path = f"/schedules/{checked(schedule_id)}{verb}"
        return await self._link.ask(method, path, about=about, pool=about.pool, **more)


def _shown(told: Any) -> ScheduleInfo:  # noqa: ANN401 - JSON
    return ScheduleInfo.model_validate(told, context=AS_STORED)
