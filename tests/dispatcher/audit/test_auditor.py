"""Each thing that an audit can find: made on purpose in a pool at work, found, explained, and repaired."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest
from redis.asyncio import Redis

from bus import TaskCreate
from bus.ids import check_pool
from bus.messages import Assignment, SubmitTask
from bus.names import DATA_FIELD, DISPATCHERS_GROUP, PoolNames
from dispatcher.audit.auditor import Auditor
from dispatcher.audit.findings import UNREPAIRED, WORDS, Finding, Kind
from dispatcher.audit.repairs import TASK, Repair, Repairs
from tests.dispatcher.audit.conftest import PATIENCE, Audit, Place
from tests.support.bus import running_dispatcher
from tests.support.waiting import eventually

Break = Callable[[Place], Awaitable[object]]


async def bad_spec(place: Place) -> None:
    await place.redis.hset(place.names.task(place.waiting), "spec", "{")


async def unlisted_agent(place: Place) -> None:
    await place.redis.zrem(place.names.agents, place.agent.id)


async def left_assignment(place: Place) -> None:
    old = Assignment(
        task_id=place.completed, attempt=1, session="s0", score=1, assigned_at=1, task=SubmitTask(capability="t.x")
    )
    await place.redis.xadd(place.names.assignments(place.agent.id), {DATA_FIELD: old.model_dump_json()})


async def orphaned_children(place: Place) -> None:
    await place.redis.zadd(place.names.children(place.completed), {"x": 1})


async def left_set(place: Place) -> None:
    await place.redis.sadd(place.names.queue("t.old"), "x")


async def deleted_pending(place: Place) -> None:
    """Let an entry be delivered to somebody who is no more, and be deleted."""
    stream = place.names.commands
    entry = await place.redis.xadd(stream, {DATA_FIELD: '{"v":99}'})  # parked, so that it stays

    async def delivered() -> bool:
        return bool(await place.redis.xpending_range(stream, DISPATCHERS_GROUP, "-", "+", 10))

    await eventually(delivered)
    await place.redis.xdel(stream, entry)
    await old_enough()


async def parked(place: Place) -> None:
    await place.redis.xadd(place.names.commands, {DATA_FIELD: '{"v":99}'})
    await old_enough()


async def foreign_group(place: Place) -> None:
    await place.redis.xgroup_create(place.names.results, "spies", id="$")


async def left_consumer(place: Place) -> None:
    await place.redis.xgroup_createconsumer(place.names.results, DISPATCHERS_GROUP, "gone")
    await old_enough()


async def old_enough() -> None:
    """Let the time pass that is a finding's own: how long something is idle is measured by the server."""
    await asyncio.sleep(PATIENCE.idle_ms / 1000 + 0.1)


BROKEN: dict[str, tuple[Kind, Break]] = {
    "a lease without a task": (Kind.NO_RECORD, lambda p: p.redis.zadd(p.names.leases, {f"{p.names.pool}.x": 1})),
    "a waiting entry without a task": (
        Kind.NO_RECORD,
        lambda p: p.redis.zadd(p.names.pending, {f"{p.names.pool}.x": 1}),
    ),
    "an ended entry without a task": (
        Kind.NO_RECORD,
        lambda p: p.redis.zadd(p.names.dead, {f"{p.names.pool}.x": 9e15}),
    ),
    "a waiting task in no list": (Kind.MISPLACED, lambda p: p.redis.zrem(p.names.pending, p.waiting)),
    "a delayed task in no list": (Kind.MISPLACED, lambda p: p.redis.zrem(p.names.delayed, p.delayed)),
    "a running task in no list": (Kind.MISPLACED, lambda p: p.redis.zrem(p.names.leases, p.running)),
    "a running task in two lists": (Kind.MISPLACED, lambda p: p.redis.zadd(p.names.pending, {p.running: 1})),
    "a dead letter that is not listed": (Kind.MISPLACED, lambda p: p.redis.zrem(p.names.dead, p.failed)),
    "an unreadable task": (Kind.UNREADABLE_TASK, bad_spec),
    "a live task that expires": (Kind.TASK_EXPIRES, lambda p: p.redis.expire(p.names.task(p.waiting), 1000)),
    "an ended task that stays": (Kind.TASK_STAYS, lambda p: p.redis.persist(p.names.task(p.completed))),
    "an agent without a record": (Kind.AGENT_WITHOUT_RECORD, lambda p: p.redis.zadd(p.names.agents, {"ghost": 1})),
    "an unreadable agent": (Kind.UNREADABLE_AGENT, lambda p: p.redis.hset(p.names.agent(p.agent.id), "record", "{")),
    "an assignment left behind": (Kind.LEFT_ASSIGNMENT, left_assignment),
    "replies for ever": (Kind.NO_EXPIRY, lambda p: p.redis.xadd(p.names.replies("c1"), {"a": "b"})),
    "a control stream for ever": (Kind.NO_EXPIRY, lambda p: p.redis.persist(p.names.control(p.agent.id))),
    "children for ever": (Kind.NO_EXPIRY, orphaned_children),
    "a list that expires": (Kind.EXPIRES, lambda p: p.redis.expire(p.names.finished, 1000)),
    "a key of another type": (Kind.WRONG_TYPE, lambda p: p.redis.set(p.names.task("a.b"), "x")),
    "an unknown key": (Kind.UNKNOWN_KEY, lambda p: p.redis.set(f"{p.names.root}mine", "x")),
    "a stray in a bound": (Kind.BOUND_STRAY, lambda p: p.redis.sadd(p.names.queue("*"), f"{p.names.pool}.x")),
    "a task that no bound counts": (Kind.BOUND_MISSING, lambda p: p.redis.srem(p.names.queue("*"), p.waiting)),
    "a set without a bound": (Kind.BOUND_LEFT, left_set),
    "a delivery whose entry is deleted": (Kind.DELETED_PENDING, deleted_pending),
    "a message of a newer version": (Kind.NEWER_MESSAGE, parked),
    "a group of others": (Kind.FOREIGN_GROUP, foreign_group),
    "a consumer of a process that is gone": (Kind.LEFT_CONSUMER, left_consumer),
}


@pytest.mark.parametrize("what", BROKEN)
async def test_what_is_wrong_is_found_explained_and_repaired(place: Place, audit: Audit, what: str) -> None:
    kind, break_it = BROKEN[what]
    assert await audit() == []
    await break_it(place)
    (found,) = await audit()
    assert found.kind is kind
    assert found.words.what
    assert found.words.remedy
    (repair,) = await Repairs(place.redis, place.names, patience=PATIENCE).run([found])
    if kind in UNREPAIRED:
        assert repair is Repair.BY_HAND
        assert [one.kind for one in await audit()] == [kind]
        return
    assert repair is Repair.REPAIRED
    await eventually(lambda: place.redis.exists(place.names.leader))
    assert await audit() == []
    # And the pool goes on.
    place.agent.assignments = asyncio.Queue()
    handle = await place.bus.submit("t.x")
    while (given := await place.agent.next()).task_id != handle.id:
        pass
    await place.agent.complete(given, "well")
    assert await handle.result(timeout=30) == "well"


async def test_an_agent_that_no_list_names_and_its_tasks_are_put_right_together(place: Place, audit: Audit) -> None:
    await unlisted_agent(place)
    found = await audit()
    assert {one.kind for one in found} == {Kind.AGENT_NOT_LISTED, Kind.NO_AGENT}
    assert set(await Repairs(place.redis, place.names).run(found)) == {Repair.REPAIRED}
    await eventually(lambda: place.redis.exists(place.names.leader))
    assert await audit() == []


async def test_a_repaired_task_is_run_by_a_leader_that_had_not_found_it(place: Place, audit: Audit) -> None:
    """The list lost it, and the leader has loaded the ledger since: nobody would ever run it."""
    task_id = (await place.bus.submit("t.y")).id
    await eventually(lambda: place.redis.hexists(place.names.task(task_id), "state"))
    await place.redis.zrem(place.names.pending, task_id)
    await place.redis.delete(place.names.leader)  # fences the leader off: it loads anew
    await eventually(lambda: place.redis.exists(place.names.leader))
    found = [one for one in await audit() if one.kind is Kind.MISPLACED]
    await Repairs(place.redis, place.names).run(found)
    another = type(place.agent)(place.redis, place.names.pool, "other")
    await another.register("t.y")
    given = await another.next()
    assert given.task_id == task_id
    await another.complete(given, "late, and not lost")
    assert await place.bus.handle(task_id).result(timeout=30) == "late, and not lost"
    await another.fall_silent()


async def test_a_repair_never_undoes_what_a_leader_has_decided_meanwhile(place: Place, audit: Audit) -> None:
    await place.redis.zrem(place.names.pending, place.waiting)
    found = await audit()
    await place.bus.cancel([place.waiting])
    await place.bus.handle(place.waiting).status()
    await eventually(lambda: place.redis.zscore(place.names.finished, place.waiting))
    await Repairs(place.redis, place.names).run(found)
    assert await place.redis.zscore(place.names.pending, place.waiting) is None
    await eventually(lambda: place.redis.exists(place.names.leader))
    assert await audit() == []


async def test_a_pool_without_a_leader_in_which_work_waits_is_told(place: Place) -> None:
    other = PoolNames(check_pool(f"{place.names.pool}o"))
    await place.bus.submit("t.x", pool=other.pool)
    found = await Auditor(place.redis, other, pause_s=0.01).run()
    assert {one.kind for one in found} == {Kind.NO_GROUP, Kind.NO_LEADER}


async def led_by_nobody_who_reads(redis: Redis, names: PoolNames) -> str:
    """Let a leader lead that does not read, and an entry be old enough that one should have; return its id."""
    await redis.set(names.leader, "1|stuck|nonce", px=60_000)
    await redis.xgroup_create(names.commands, DISPATCHERS_GROUP, id="0", mkstream=True)
    cancel = '{"v":1,"type":"cancel","task_ids":["a.b"]}'
    return str(await redis.xadd(names.commands, {DATA_FIELD: cancel}))


async def found_after_a_while(redis: Redis, names: PoolNames) -> list[Finding]:
    auditor = Auditor(redis, names, pause_s=0.05, patience=PATIENCE)
    assert await auditor.run() == [], "it is young"
    await old_enough()
    return await auditor.run()


async def repaired_by_the_next_leader(redis: Redis, url: str, names: PoolNames, found: Sequence[Finding]) -> None:
    assert set(await Repairs(redis, names, patience=PATIENCE).run(found)) == {Repair.REPAIRED}
    assert not await redis.exists(names.leader), "it has lost the lead, so that another may read"
    async with running_dispatcher(url, names.pool):
        await eventually(lambda: _empty(redis, names.commands))
        left = await Auditor(redis, names, pause_s=0.05, patience=PATIENCE).run()
        assert not {one.kind for one in left} - {Kind.LEFT_CONSUMER}


async def _empty(redis: Redis, stream: str) -> bool:
    return not await redis.xlen(stream)


async def test_a_stream_that_a_leader_does_not_read_is_found_and_read_by_the_next(
    redis: Redis, redis_url: str, pool: str
) -> None:
    names = PoolNames(check_pool(pool))
    entry = await led_by_nobody_who_reads(redis, names)
    found = await found_after_a_while(redis, names)
    assert [(one.kind, one.subject) for one in found] == [(Kind.NOT_CONSUMED, names.commands)]
    assert entry.strip("b'") in found[0].detail
    await repaired_by_the_next_leader(redis, redis_url, names, found)


async def test_an_entry_that_was_delivered_to_nobody_who_lives_is_found_and_claimed_by_the_next_leader(
    redis: Redis, redis_url: str, pool: str
) -> None:
    names = PoolNames(check_pool(pool))
    await led_by_nobody_who_reads(redis, names)
    await redis.xreadgroup(DISPATCHERS_GROUP, "gone", {names.commands: ">"})
    found = await found_after_a_while(redis, names)
    assert [one.kind for one in found] == [Kind.NO_OWNER, Kind.NOT_CONSUMED]
    await repaired_by_the_next_leader(redis, redis_url, names, found)


async def test_a_busy_pool_shows_nothing(place: Place) -> None:
    """Audits without an end, and each suspects something; but nothing stays wrong."""
    stop = asyncio.Event()

    async def work() -> None:
        while True:
            given = await place.agent.next()
            await place.agent.complete(given)

    async def submit() -> None:
        while not stop.is_set():
            tasks = [TaskCreate(capability="t.x", delay=0.05 * (n % 3)) for n in range(30)]
            for handle in await place.bus.submit_many(tasks, wait_for_room=5):
                await handle.result(timeout=30)

    working, submitting = asyncio.create_task(work()), asyncio.create_task(submit())
    auditor = Auditor(place.redis, place.names, pause_s=0.02, patience=PATIENCE)
    for _ in range(25):
        assert await auditor.run() == []
    stop.set()
    await submitting
    working.cancel()


def test_every_kind_is_explained() -> None:
    assert set(WORDS) == set(Kind)


async def test_a_repair_of_a_task_that_has_moved_on_writes_nothing(place: Place) -> None:
    names, task_id = place.names, place.running
    keys = [names.task(task_id), names.pending, names.delayed, names.leases, names.finished, names.dead]
    before = await place.redis.zscore(names.leases, task_id)
    assert await TASK.run(place.redis, keys, [task_id, "PENDING/0//", 7, "", "", "", "", 1000]) == b"MOVED"
    assert await place.redis.zscore(names.leases, task_id) == before
    assert await place.redis.zscore(names.pending, task_id) is None
    assert await place.redis.pttl(names.task(task_id)) == -1
