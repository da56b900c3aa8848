"""Bounds of waiting tasks on a real server: never exceeded, and nothing is refused below them, whatever happens.

The truth is what the streams and the records hold: a task waits while its submission is unread or its record PENDING.
"""

import asyncio
from random import Random
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic_core import from_json
from redis.asyncio import Redis

from bus import TaskCreate
from bus.connection import connect
from bus.ids import ClientId, TaskId, check_pool, new_nonce
from bus.messages import CapabilitySpec, Register, Report, TaskHeader, TaskResult
from bus.names import DATA_FIELD, PoolNames
from bus.states import TaskPriority, TaskStatus
from bus.submission import Sent, Submission, send, submission_of
from dispatcher import ledger as ledger_module
from dispatcher.commit_call import Inputs
from dispatcher.core.config import SchedulerConfig
from dispatcher.core.events import Duplicate, Reported, SignedIn, Submitted
from dispatcher.core.scheduler import Scheduler
from dispatcher.leadership import Lead, Leadership
from dispatcher.ledger import Ledger
from dispatcher.loading import load_agents, load_notes, load_tasks
from dispatcher.strays import StraySearch
from tests.support.tapped import DiedError, Life, Tapped

NOW = 1_800_000_000_000
POOL, OF_A = 9, 4
"""The bounds of the pool and of capability `a`."""


class Bounded:
    """A pool whose bounds are in force, a leader that reads and stores, and submitters."""

    def __init__(self, redis: Redis, url: str) -> None:
        self.redis: Any = redis
        self.url = url
        self.names = PoolNames(check_pool(f"b{new_nonce()[-12:]}"))
        self.life = Life()
        self.mortal: Any = Tapped(redis, before=self.life)
        self.scheduler = Scheduler()
        self.ledger: Ledger
        self.lead: Lead
        self.by_hand: set[str] = set()
        """Unread submissions that no script has stored: not counted until they are accepted."""

    async def begin(self) -> None:
        """Take over as a new dispatcher does."""
        await self.redis.delete(self.names.leader)
        won = await Leadership(self.redis, self.names, "one", lease_ms=600_000).acquire()
        assert won is not None
        self.lead, self.ledger, self.life.left = won, Ledger(self.mortal, self.names), None
        self.scheduler = Scheduler(SchedulerConfig(prefetch_ms=0, max_pending=POOL, capability_max_pending={"a": OF_A}))
        agents = await load_agents(self.redis, self.names, NOW)
        self.scheduler.load(agents, (), NOW, await load_notes(self.redis, self.names))
        async for page in load_tasks(self.redis, self.names):
            self.scheduler.load((), page, NOW)
        await self.lead_on()

    # --- the leader

    async def lead_on(self, *events: Any, calls: int | None = None) -> None:
        """Read everything, decide and store it; `calls`: die before the call after so many, and be followed."""
        submitted, acks = [], {}
        for level in TaskPriority:
            entries = await self.redis.xrange(self.names.submissions(level))
            acks[self.names.submissions(level)] = [raw.decode() for raw, _ in entries]
            for _, fields in entries:
                body = fields[DATA_FIELD.encode()]
                header = TaskHeader.model_validate_json(body)
                submitted.append(Submitted(str(header.id), header, body, NOW))
        decisions = self.scheduler.step([*submitted, *events], NOW)
        self.life.left = calls
        try:
            known = await self.ledger.commit(self.lead, decisions, Inputs(acks=acks), NOW)
        except DiedError:
            await self.begin()
            return
        self.by_hand.clear()
        if known:
            await self.ledger.commit(self.lead, self.scheduler.step([Duplicate(k) for k in known], NOW), Inputs(), NOW)

    async def agent(self) -> None:
        """Let an agent of two slots sign in."""
        message = Register(
            agent_id="x",
            session="s",
            capabilities=(CapabilitySpec(name="a"), CapabilitySpec(name="b")),
            slots=2,
            lease=86_400,
        )
        await self.lead_on(SignedIn(message, NOW))

    async def end(self, status: Literal[TaskStatus.COMPLETED, TaskStatus.FAILED]) -> None:
        """Let the agent report how its oldest task ended; a failed one waits again."""
        agent = self.scheduler.board.fleet.agents.get("x")
        tasks = [] if agent is None else list(agent.tasks.values())
        if tasks:
            one = TaskResult(task_id=tasks[0].id, attempt=tasks[0].attempt, status=status)
            await self.lead_on(Reported(Report(agent_id="x", session="s", results=(one,)), NOW))

    # --- submitters

    def made(self, capability: str, **fields: Any) -> Submission:
        """Make a submission."""
        task = TaskCreate.model_validate({"capability": capability, **fields})
        return submission_of(task, self.names.pool, ClientId("c"))[1]

    async def submit(self, rng: Random) -> None:
        """Let several clients submit at once, and compare what was let in with the room that there was."""
        before = await self.waiting()
        parts = [[self.made(rng.choice("aab"), max_attempts=9) for _ in range(rng.randrange(1, 4))] for _ in range(3)]
        said: list[Sent] = await asyncio.gather(*(send(self.redis, self.url, self.names, part) for part in parts))
        stored = {
            one.task_id: one.capability
            for part, sent in zip(parts, said, strict=True)
            for n, one in enumerate(part)
            if n not in sent.refused
        }
        after = await self.waiting()
        assert after == before | stored
        refused = [
            (one, sent.refused[n])
            for part, sent in zip(parts, said, strict=True)
            for n, one in enumerate(part)
            if n in sent.refused
        ]
        if stored:
            assert len(after) <= POOL
        if "a" in stored.values():
            assert of_a(after) <= OF_A
        for one, why in refused:  # the number that it was told was the number then, and there was no room
            assert why.pending >= why.bound == (POOL if why.by_pool else OF_A)
            assert len(after) >= POOL if why.by_pool else (one.capability == "a" and of_a(after) >= OF_A)

    async def by_wire(self, rng: Random) -> None:
        """Submit as a program does that has no script: never refused."""
        one = self.made(rng.choice("ab"))
        await self.redis.xadd(self.names.submissions(one.priority), {DATA_FIELD: one.body})
        self.by_hand.add(one.task_id)

    # --- the truth

    async def waiting(self) -> dict[TaskId, str]:
        """Return the tasks that wait and count, with their capabilities, by the streams and the records."""
        found: dict[TaskId, str] = {}
        for level in TaskPriority:
            for _, fields in await self.redis.xrange(self.names.submissions(level)):
                body = from_json(fields[DATA_FIELD.encode()])
                found[body["id"]] = body["capability"]
        for name in self.by_hand:
            found.pop(TaskId(name), None)
        for index in (self.names.pending, self.names.delayed):
            for raw in await self.redis.zrange(index, 0, -1):
                spec = from_json(await self.redis.hget(self.names.task(raw.decode()), "spec"))
                found[raw.decode()] = spec["capability"]
        return found

    async def check(self) -> None:
        """Compare what the sets hold with the truth."""
        waiting = await self.waiting()
        for scope, expected in (("*", set(waiting)), ("a", {t for t, name in waiting.items() if name == "a"})):
            members = {raw.decode() for raw in await self.redis.smembers(self.names.queue(scope))}
            assert members - self.by_hand == expected - self.by_hand, scope


def of_a(tasks: dict[TaskId, str]) -> int:
    """Return how many tasks are of capability `a`."""
    return sum(name == "a" for name in tasks.values())


STEPS = ("submit", "submit", "submit", "wire", "lead", "lead", "die", "die", "crash", "agent", "complete", "fail")


@pytest.mark.timeout(300)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=st.lists(st.sampled_from(STEPS), min_size=5, max_size=40), seed=st.integers(0, 2**32))
def test_no_bound_is_exceeded_and_nothing_is_refused_below_it(steps: list[str], seed: int, redis_url: str) -> None:
    batch, ledger_module.BATCH = ledger_module.BATCH, 2  # type: ignore[misc] # so that most passes take several calls
    try:
        with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
            runner.run(_live(redis_url, steps, Random(seed)))
    finally:
        ledger_module.BATCH = batch  # type: ignore[misc]


async def _live(url: str, steps: list[str], rng: Random) -> None:
    async with connect(url, name="bounds") as redis:
        pool = Bounded(redis, url)
        await pool.begin()
        for step in steps:
            match step:
                case "submit":
                    await pool.submit(rng)
                case "wire":
                    await pool.by_wire(rng)
                case "lead":
                    await pool.lead_on()
                case "die":
                    await pool.lead_on(calls=rng.randrange(4))
                case "crash":
                    await pool.begin()
                case "agent":
                    await pool.agent()
                case "complete":
                    await pool.end(TaskStatus.COMPLETED)
                case _:
                    await pool.end(TaskStatus.FAILED)
            await pool.check()
        async for key in redis.scan_iter(f"{pool.names.root}*"):
            await redis.unlink(key)


@pytest.fixture
async def bounded(redis: Redis, redis_url: str) -> Bounded:
    """Provide a pool with bounds in force."""
    pool = Bounded(redis, redis_url)
    await pool.begin()
    return pool


async def test_each_of_a_call_is_judged_by_itself_in_their_order(bounded: Bounded) -> None:
    part = [bounded.made("a") for _ in range(6)] + [bounded.made("b")]
    sent = await send(bounded.redis, bounded.url, bounded.names, part)
    assert {n: why.pending for n, why in sent.refused.items()} == {4: 4, 5: 4}
    error = sent.refused[4].error(bounded.names, part[4])
    assert (error.pool, error.capability, error.bound, error.pending) == (bounded.names.pool, "a", 4, 4)
    assert "wait_for_room" in str(error)


async def test_a_known_key_is_never_refused_and_a_refused_one_leaves_nothing(bounded: Bounded) -> None:
    names = bounded.names
    first = bounded.made("a", key="k")
    await send(bounded.redis, bounded.url, names, [first, *(bounded.made("a") for _ in range(9))])
    again, other = bounded.made("a", key="k"), bounded.made("a", key="other")
    sent = await send(bounded.redis, bounded.url, names, [again, other])
    assert sent.known == {0}
    assert list(sent.refused) == [1]
    assert not await bounded.redis.exists(names.submitted(other.task_id))


async def test_a_call_that_is_repeated_stores_nothing_more_and_is_told_the_same(bounded: Bounded) -> None:
    from redis.exceptions import ConnectionError as RedisConnectionError  # noqa: PLC0415

    class Forgetful:
        """Loses the first reply."""

        def __init__(self, redis: Any) -> None:
            self.redis = redis
            self.lost = False

        async def execute_command(self, *args: Any) -> Any:
            """Send a command."""
            reply = await self.redis.execute_command(*args)
            if self.lost:
                return reply
            self.lost = True
            raise RedisConnectionError

    part = [bounded.made("a") for _ in range(6)]
    redis: Any = Forgetful(bounded.redis)
    sent = await send(redis, bounded.url, bounded.names, part)
    assert list(sent.refused) == [4, 5]
    assert set(await bounded.waiting()) == {one.task_id for one in part[:4]}


async def test_what_does_not_wait_is_found_out_unless_it_may_be_unread(bounded: Bounded) -> None:
    stream = bounded.names.submissions(TaskPriority.MEDIUM)
    lost, kept = bounded.made("a"), bounded.made("a")
    await send(bounded.redis, bounded.url, bounded.names, [lost])
    search = StraySearch(bounded.redis, bounded.names)
    for _ in range(3):
        assert [found async for found in search.look(bounded.scheduler)] == [], "it is unread"
    await bounded.redis.delete(stream)
    await send(bounded.redis, bounded.url, bounded.names, [kept])
    found = [one async for one in search.look(bounded.scheduler)]
    assert {one.scope: one.task_ids for one in found} == {"*": (lost.task_id,), "a": (lost.task_id,)}
    await bounded.lead_on(*found)
    await bounded.check()
    assert set(await bounded.waiting()) == {kept.task_id}


async def test_without_bounds_a_submission_leaves_no_traces(redis: Redis, redis_url: str, pool: str) -> None:
    names = PoolNames(check_pool(pool))
    task = TaskCreate(capability="a")
    await send(redis, redis_url, names, [submission_of(task, names.pool, ClientId("c"))[1]])
    assert await redis.keys(f"{names.root}*") == [names.submissions(TaskPriority.MEDIUM).encode()]
