"""A leader that dies between two calls of the commit script, on a real server: no firing is lost, none is doubled."""

from typing import Any

import pytest
from redis.asyncio import Redis

from bus.filters import TaskFilter
from bus.ids import scheduled_task_id
from bus.ledger_view import LedgerView
from bus.messages import CapabilitySpec, Command, Register, Report, TaskResult
from bus.names import PoolNames
from bus.states import TaskStatus
from dispatcher.core.events import Commanded, Duplicate, Event, Reported, SignedIn
from dispatcher.core.scheduler import Scheduler
from dispatcher.leadership import Lead, Leadership
from dispatcher.ledger import Ledger
from dispatcher.loading import load_agents, load_notes, load_tasks
from tests.dispatcher.ledger.conftest import NOTHING, NOW
from tests.support.tapped import DiedError, Life, Tapped

SCHEDULES = 250
MINUTE = 60_000
DUE = NOW + MINUTE


class Leader:
    """One term: a scheduler that knows what the ledger has, and its lead."""

    def __init__(self, scheduler: Scheduler, redis: Redis, names: PoolNames, lead: Lead, now: int) -> None:
        self.redis, self.names = redis, names
        self.scheduler = scheduler
        self.ledger = Ledger(redis, names)
        self.lead = lead
        self.now = now

    @classmethod
    async def of(cls, redis: Redis, names: PoolNames, now: int) -> "Leader":
        """Take over."""
        await redis.delete(names.leader)
        lead = await Leadership(redis, names, f"at {now}", lease_ms=60_000).acquire()
        assert lead is not None
        scheduler = Scheduler(pool=names.pool)
        scheduler.load(await load_agents(redis, names, now), (), now, await load_notes(redis, names))
        async for page in load_tasks(redis, names):
            scheduler.load((), page, now)
        return cls(scheduler, redis, names, lead, now)

    async def act(self, *events: Event) -> None:
        """Decide and store until nothing is due."""
        known = await self._store(*events)
        while known or ((due := self.scheduler.next_due) is not None and due <= self.now):
            known = await self._store(*(Duplicate(task_id) for task_id in known))

    async def _store(self, *events: Event) -> list[str]:
        return await self.ledger.commit(self.lead, self.scheduler.step(events, self.now), NOTHING, self.now)

    async def act_and_die(self, calls: int, *events: Event) -> None:
        """Do the same, and be killed after so many calls."""
        mortal: Any = Tapped(self.redis, before=Life(calls))
        self.ledger = Ledger(mortal, self.names)
        with pytest.raises(DiedError):
            await self.act(*events)


@pytest.mark.parametrize("calls", [0, 1, 2])
@pytest.mark.parametrize("ended", [False, True])
async def test_each_instant_is_one_task_whenever_the_leader_dies(
    redis: Redis, names: PoolNames, calls: int, ended: bool
) -> None:
    first = await Leader.of(redis, names, NOW)
    register = Register(agent_id="a", session="s1", capabilities=(CapabilitySpec(name="do"),), slots=1_000, lease=3_600)
    specs = [{"id": f"s{n}", "every": 60, "task": {"capability": "do"}} for n in range(SCHEDULES)]
    puts = [Command.model_validate({"type": "put_schedule", "schedule": spec}).root for spec in specs]
    await first.act(SignedIn(register, NOW), *(Commanded(put, NOW) for put in puts))

    first.now = DUE + 3
    await first.act_and_die(calls)
    ids = {f"s{n}": scheduled_task_id(names.pool, f"s{n}", DUE) for n in range(SCHEDULES)}
    made = [task_id for task_id in ids.values() if await redis.exists(names.task(task_id))]
    assert len(made) == 100 * calls

    successor = await Leader.of(redis, names, DUE + 4_000)
    if ended:  # this one dies, too, when it is stored that they have ended, and not that they were what was due
        results = tuple(TaskResult(task_id=i, attempt=1, status=TaskStatus.COMPLETED) for i in made)
        report = Report(agent_id="a", session="s1", results=results)
        await successor.act_and_die(calls, Reported(report, DUE + 4_000))
        successor = await Leader.of(redis, names, DUE + 5_000)
    await successor.act()

    view = LedgerView(redis, names)
    for info in await view.schedules():
        assert (info.progress.fired, info.progress.skipped) == (1, 0)
        assert (info.progress.last_due, info.progress.next_due) == (DUE, DUE + MINUTE)
        assert info.progress.last_task == ids[info.id]
    tasks = await view.tasks(TaskFilter(), 1_000, 10_000)
    assert sorted(task.id for task in tasks) == sorted(ids.values())
    done = {task.id for task in tasks if task.status is TaskStatus.COMPLETED}
    assert done == (set(made) if ended else set())
    live = {name for name, task_id in ids.items() if task_id not in done}
    assert set(successor.scheduler.board.schedules.runs) == live, "what has ended holds up nobody"
