"""SIGKILL of a leader between any two of its steps: another takes over, everything ends exactly once, nothing is left.

And SIGSTOP: it wakes when another leads, believes for a moment that it does itself, and goes on where it was.

The victim is a process of its own, which does that to itself (`dying_dispatcher`), and a child of the nursery, so that
a step costs no start of Python. The end of its lease is not waited for: the key of that is deleted.
"""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from multiprocessing.process import BaseProcess
from typing import Any, Final

import psutil
import pytest
from pydantic_core import to_json
from redis.asyncio import Redis

from bus import Client, TaskCreate, TaskHandle
from bus.ids import check_pool
from bus.messages import EventBatch, HandBack, SubmitTask, TaskError, TaskResult, TaskUpdate
from bus.names import DATA_FIELD, DISPATCHERS_GROUP, PoolNames
from bus.states import TaskPriority, TaskStatus
from dispatcher.audit.auditor import Auditor
from tests.integration import dying_dispatcher
from tests.integration.dying_dispatcher import Step
from tests.support import nursery
from tests.support.bus import WireAgent, running_dispatcher
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(120)

MANY: Final = 330
"""Tasks of more than one pass: the commit of the first is of two calls at least."""
HELD: Final = 6
STEPS: Final = (
    # becoming the leader, and loading
    Step("before", "Leadership.acquire"),
    Step("after", "Leadership.acquire"),
    Step("before", "dispatcher.pool.load_notes"),
    Step("after", "dispatcher.pool.load_agents"),
    Step("after", "dispatcher.loading._tasks"),
    Step("after", "dispatcher.loading._tasks", 2),
    Step("after", "PoolDispatcher._take_over"),
    # taking what the one before had read
    Step("after", "Intake._ensure_group", 8),
    Step("before", "Intake._claim"),
    Step("after", "Intake._claim", 5),
    # deciding and storing
    Step("before", "PoolDispatcher._arrived"),
    Step("after", "Scheduler.step"),
    Step("after", "Scheduler.step", 4),
    Step("before", "Flight.send", 1, 2),
    Step("after", "Flight.send", 1, 2),
    Step("before", "Flight.send", 2, 2),
    Step("before", "Flight.reply", 1, 2),
    Step("after", "Flight.reply", 1, 2),
    Step("after", "Flight.reply", 2, 2),
    Step("after", "Ledger.commit"),
    Step("before", "dispatcher.engine.report_pass", 2),
    Step("after", "PoolDispatcher._consumed", 2),
    # asking the ledger
    Step("before", "dispatcher.engine.load_guards"),
    Step("after", "dispatcher.engine.load_guards"),
    Step("before", "dispatcher.engine.with_records"),
    # leading on, and leaving
    Step("after", "Leadership.renew"),
    Step("before", "Ledger.publish", 2),
    Step("before", "Intake.stop", stopping=True),
    Step("before", "Leadership.release", stopping=True),
    Step("after", "Leadership.release", stopping=True),
)


SLEEPS: Final = (
    Step("after", "Leadership.acquire", sleeps=True),
    Step("after", "dispatcher.loading._tasks", sleeps=True),
    Step("before", "Intake._claim", 5, sleeps=True),
    Step("before", "PoolDispatcher._arrived", sleeps=True),
    Step("after", "Scheduler.step", sleeps=True),
    Step("before", "Flight.send", 1, 2, sleeps=True),
    Step("before", "Flight.send", 2, 2, sleeps=True),
    Step("after", "Flight.reply", 1, 2, sleeps=True),
    Step("before", "Leadership.renew", sleeps=True),
    Step("before", "Leadership.release", stopping=True, sleeps=True),
)


class Hand:
    """An agent that does as the payload says, and counts what it has begun."""

    def __init__(self, agent: WireAgent) -> None:
        self.agent = agent
        self.open = asyncio.Event()
        self.ends: Counter[str] = Counter()

    async def work(self) -> None:
        """Do one task after the other, until cancelled."""
        while True:
            given = await self.agent.assignments.get()
            await self.open.wait()
            await self._do(given)

    async def _do(self, given: Any) -> None:
        what, agent = given.task.payload, self.agent
        item = {"task_id": given.task_id, "attempt": given.attempt}
        if what == "back" and given.attempt == 1:
            agent.held.pop(given.task_id, None)
            await agent.report(returned=(HandBack(**item),))
        elif what == "bad" or (what == "again" and given.attempt == 1):
            agent.held.pop(given.task_id, None)
            error = TaskError(type="ValueError", message="no")
            failed = TaskResult(**item, status=TaskStatus.FAILED, error=error, retryable=what == "again")
            await agent.report(results=(failed,))
        else:
            if what == "long":
                await agent.report(updates=(TaskUpdate(**item, progress=0.5),))
            await agent.complete(given, f"{what} {given.attempt}")


@asynccontextmanager
async def a_hand(redis: Redis, pool: str) -> AsyncIterator[Hand]:
    """Have an agent that works once its `open` is set; it signs in with whoever leads."""
    agent = WireAgent(redis, pool)
    await agent.register("t.x", slots=100)
    hand = Hand(agent)
    working = asyncio.create_task(hand.work())
    try:
        yield hand
    finally:
        working.cancel()
        await agent.fall_silent()


@asynccontextmanager
async def victim_of(step: Step, url: str, pool: str) -> AsyncIterator[BaseProcess]:
    """Run the victim, and have it while the block runs, once it has killed or stopped itself."""
    victim = nursery.child(dying_dispatcher.run, step, url, pool)
    victim.start()
    try:
        if step.sleeps:
            await eventually(lambda: psutil.Process(victim.pid).status() == psutil.STATUS_STOPPED, timeout=30)
        else:
            await eventually(lambda: victim.exitcode is not None, timeout=30)
            assert victim.exitcode == -signal.SIGKILL, "it came to that step"
        yield victim
    finally:
        victim.kill()
        victim.join()


@pytest.mark.parametrize("step", STEPS, ids=str)
async def test_a_leader_killed_between_any_two_steps_loses_and_doubles_nothing(
    redis: Redis, redis_url: str, pool: str, step: Step
) -> None:
    await play(redis, redis_url, pool, step)


@pytest.mark.parametrize("step", SLEEPS, ids=str)
async def test_a_leader_that_slept_at_any_step_and_wakes_when_another_leads_does_no_harm(
    redis: Redis, redis_url: str, pool: str, step: Step
) -> None:
    await play(redis, redis_url, pool, step)


async def play(redis: Redis, redis_url: str, pool: str, step: Step) -> None:
    """Let the victim lead a pool with work of every kind, and another take over."""
    names = PoolNames(check_pool(pool))
    first = running_dispatcher(redis_url, pool, dispatcher_id="first")
    await first.__aenter__()
    async with Client(redis_url, pool=pool) as bus, a_hand(redis, pool) as hand:
        held = await bus.submit_many([TaskCreate(capability="t.x", payload="long")] * HELD)
        await eventually(lambda: len(hand.agent.held) == HELD)
        hand.open.set()
        await eventually(lambda: not hand.agent.held)
        parent, dead = await bus.submit("t.x", "well"), await bus.submit("t.x", "bad")
        assert await parent.result(timeout=30) == "well 1"
        with pytest.raises(Exception, match="no"):
            await dead.result(timeout=30)
        hand.open.clear()
        held += await bus.submit_many([TaskCreate(capability="t.x", payload="long")] * HELD)
        late = await bus.submit("t.x", "late", delay=0.3)
        waiting = await bus.submit("t.none", "never")  # whatever `late` does meanwhile, the ledger has one that waits
        await eventually(lambda: len(hand.agent.held) == HELD)
        await first.__aexit__(None, None, None)

        handles, cancelled = await _work(redis, names, bus, parent, dead, waiting)
        hand.open.set()
        await eventually(lambda: not hand.agent.held)  # its results lie unread
        async with (
            victim_of(step, redis_url, pool) as victim,
            the_next(redis, redis_url, pool, names),
        ):
            if step.sleeps:
                handles += await _wake(redis, names, bus, victim)
            results = [await handle.result(timeout=30) for handle in (*handles, *held, late)]
            assert {result.split()[0] for result in results} == {"well", "again", "back", "long", "late"}
            await eventually(lambda: _all_over(redis, names, dead, cancelled), timeout=20)
            assert await Auditor(redis, names, pause_s=0.3).run() == []
            await _check_events(redis, names, [*held, *handles, late, parent, *cancelled])


@asynccontextmanager
async def the_next(redis: Redis, url: str, pool: str, names: PoolNames) -> AsyncIterator[None]:
    """Have another lead while the block runs: the lease of the victim is over."""
    await redis.delete(names.leader)
    async with running_dispatcher(url, pool, dispatcher_id="second"):
        yield


async def _wake(redis: Redis, names: PoolNames, bus: Client, victim: BaseProcess) -> list[TaskHandle[Any]]:
    """Wake the victim while new work comes in, some of which it reads; return that work."""
    token: Any = await redis.get(names.leader)
    assert b"|second|" in token
    assert victim.pid is not None
    os.kill(victim.pid, signal.SIGCONT)
    more = [await bus.submit("t.x", "well") for _ in range(60)]  # it reads, and finds out, while these are written
    for _ in range(3):
        more.append(await bus.submit("t.x", "well"))
        await more[-1].result(timeout=30)
    assert victim.exitcode in (None, 0), "it stands by, or has ended as it was told"
    assert await redis.get(names.leader) == token
    return more


async def _work(
    redis: Redis,
    names: PoolNames,
    bus: Client,
    parent: TaskHandle[Any],
    dead: TaskHandle[Any],
    waiting: TaskHandle[Any],
) -> tuple[list[TaskHandle[Any]], list[TaskHandle[Any]]]:
    """Write work of every kind while nobody leads; return what will complete, and what is cancelled."""
    payloads = ["well", "again", "back", "long"] + ["well"] * MANY
    handles = await bus.submit_many(TaskCreate(capability="t.x", payload=payload) for payload in payloads)
    child = SubmitTask(
        id=f"{names.pool}.child", capability="t.x", payload="well", parent=parent.id, parent_attempt=1, depth=1
    )
    await redis.xadd(names.submissions(TaskPriority.MEDIUM), {DATA_FIELD: child.model_dump_json()})
    cancelled = [waiting, *await bus.submit_many([TaskCreate(capability="t.none", payload="never")] * 3)]
    requeue = {"v": 1, "type": "requeue", "task_ids": [dead.id], "reason": "again", "reply_to": "client-q"}
    cancel = {"v": 1, "type": "cancel", "task_ids": [one.id for one in cancelled], "reason": "no need"}
    for command in (requeue, cancel):
        await redis.xadd(names.commands, {DATA_FIELD: to_json(command)})
    # Some of it has been read by a leader that did nothing with it.
    stream = names.submissions(TaskPriority.MEDIUM)
    await redis.xreadgroup(DISPATCHERS_GROUP, "former", {stream: ">"}, count=40)
    return [*handles, bus.handle(child.id or "")], cancelled


async def _all_over(redis: Redis, names: PoolNames, dead: TaskHandle[Any], cancelled: list[TaskHandle[Any]]) -> bool:
    """Tell whether the dead letter has failed once more, what is cancelled has ended, and everything is consumed."""
    again = await dead.get()
    ended = [(await one.get()).status for one in cancelled]
    streams = [names.results, names.commands, names.registrations, *map(names.submissions, TaskPriority)]
    unread = [await redis.xlen(stream) for stream in streams]
    return (
        (again.status, again.attempt) == (TaskStatus.FAILED, 2)
        and set(ended) == {TaskStatus.CANCELLED}
        and not any(unread)
    )


async def _check_events(redis: Redis, names: PoolNames, handles: list[TaskHandle[Any]]) -> None:
    """Fail if an end was told twice, or not at all; or if an attempt was."""
    told: Counter[tuple[str, TaskStatus]] = Counter()
    given: Counter[tuple[str, int]] = Counter()
    entries: Any = await redis.xrange(names.events)
    epochs = []
    for _, fields in entries:
        epochs.append(EventBatch.model_validate_json(fields[DATA_FIELD.encode()]).epoch)
        for change in EventBatch.model_validate_json(fields[DATA_FIELD.encode()]).tasks:
            told[change.task_id, change.status] += change.status.terminal
            given[change.task_id, change.attempt] += change.status is TaskStatus.ASSIGNED
    ends = Counter(task_id for task_id, status in told if status.terminal)
    assert {handle.id: ends[handle.id] for handle in handles} == dict.fromkeys((one.id for one in handles), 1)
    assert all(count == 1 for (_, status), count in told.items() if status.terminal and status is not TaskStatus.FAILED)
    assert set(given.values()) <= {0, 1}, "an attempt was given out twice"
    assert epochs == sorted(epochs), "a former leader has written"
