"""A schedule submits a task again and again: by a cron text or an interval, whoever leads the pool."""

from datetime import UTC, datetime, timedelta

import pytest

from agent_runtime import Agent, TaskContext, capability
from bus import Client, NoLeaderError, ScheduleError, TaskStatus, UnknownScheduleError
from bus.clock import wall_ms
from tests.fundamentals.conftest import RunAgent, running_agent
from tests.support.bus import running_dispatcher
from tests.support.waiting import eventually


class Reports(Agent):
    def __init__(self) -> None:
        self.built: list[tuple[str | None, datetime | None]] = []

    @capability("reports.build")
    async def build(self, task: dict[str, str], ctx: TaskContext) -> str:
        self.built.append((ctx.schedule, ctx.due))
        return task["kind"]


async def test_a_schedule_submits_its_task_at_each_of_its_instants(bus: Client, run_agent: RunAgent) -> None:
    agent = Reports()
    await run_agent(agent)
    made = await bus.schedules.put("often", "reports.build", {"kind": "short"}, every=1)
    assert made.progress.next_due == made.progress.created_at + 1_000
    await eventually(lambda: len(agent.built) == 2)
    (first, due), (second, next_due) = agent.built
    assert first == second == "often"
    assert due is not None
    assert next_due == due + timedelta(seconds=1), "the instants do not drift"
    known = await bus.schedules.get("often")
    assert known.progress.last_task is not None
    record = await bus.get(known.progress.last_task)
    assert record.schedule is not None
    assert record.schedule.id == "often"


async def test_a_cron_text_is_read_by_the_clock_of_its_time_zone(bus: Client) -> None:
    made = await bus.schedules.put(
        "nightly", "reports.build", {"kind": "long"}, cron="0 3 * * *", timezone="Asia/Tokyo"
    )
    due = datetime.fromtimestamp((made.progress.next_due or 0) / 1000, UTC)
    assert (due.hour, due.minute) == (18, 0)
    assert [info.id for info in await bus.schedules.list()] == ["nightly"]


async def test_a_schedule_rests_and_goes_on_and_may_be_triggered_at_any_time(bus: Client, run_agent: RunAgent) -> None:
    agent = Reports()
    await run_agent(agent)
    await bus.schedules.put("yearly", "reports.build", {"kind": "year"}, cron="0 0 1 1 *")
    paused = await bus.schedules.pause("yearly", "books are not closed")
    assert (paused.state, paused.progress.reason) == ("paused", "books are not closed")
    handle = await bus.schedules.trigger("yearly")
    assert await handle.result(timeout=30) == "year"
    assert agent.built[0][0] == "yearly"
    assert (await bus.schedules.resume("yearly")).state == "active"
    await bus.schedules.delete("yearly")
    with pytest.raises(UnknownScheduleError):
        await bus.schedules.get("yearly")


async def test_while_a_task_has_not_ended_the_next_is_skipped_or_replaces_it(bus: Client) -> None:
    await bus.schedules.put("patient", "nobody.can", every=3600)
    await bus.schedules.trigger("patient")
    with pytest.raises(ScheduleError, match="has not ended"):
        await bus.schedules.trigger("patient")
    await bus.schedules.put("hasty", "nobody.can", every=3600, overlap="replace")
    first = await bus.schedules.trigger("hasty")
    await bus.schedules.trigger("hasty")
    assert (await first.get()).status is TaskStatus.CANCELLED


async def test_what_cannot_be_is_refused_where_it_is_made(bus: Client) -> None:
    with pytest.raises(ScheduleError, match="five fields"):
        await bus.schedules.put("s", "reports.build", cron="every day")
    with pytest.raises(ScheduleError, match="IANA"):
        await bus.schedules.put("s", "reports.build", cron="0 3 * * *", timezone="Berlin")
    with pytest.raises(ScheduleError, match="one of"):
        await bus.schedules.put("s", "reports.build")
    with pytest.raises(ScheduleError, match="leave the key out"):
        await bus.schedules.put("s", "reports.build", every=60, key="k")
    with pytest.raises(ScheduleError, match="time zone"):
        await bus.schedules.put("s", "reports.build", every=60, start=datetime(2027, 1, 1))  # noqa: DTZ001 - that is it
    assert await bus.schedules.list() == []


async def test_a_change_of_the_leader_loses_nothing_and_doubles_nothing(redis_url: str, pool: str) -> None:
    agent = Reports()
    async with Client(redis_url, pool=pool) as bus:
        async with running_dispatcher(redis_url, pool):
            await bus.schedules.put("steady", "reports.build", {"kind": "x"}, every=1, missed="all", overlap="queue")
        with pytest.raises(NoLeaderError, match=r"within 0\.1 s: what was asked for is stored") as nobody:
            await bus.schedules.pause("absent", timeout=0.1)
        assert nobody.value.stored
        made = await bus.schedules.get("steady")
        due_at = made.progress.next_due or 0
        await eventually(lambda: wall_ms() > due_at + 100)  # nobody leads while it is due
        async with running_dispatcher(redis_url, pool), running_agent(bus, agent):
            await eventually(lambda: len(agent.built) >= 3)
    due = [int(at.timestamp() * 1000) for _, at in agent.built if at is not None]
    assert sorted(due) == [made.progress.anchor + n * 1_000 for n in range(1, len(due) + 1)]
