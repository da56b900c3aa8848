"""Every role works with its own user on a real server, and what it must not do is refused."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from agent_runtime import Agent, TaskContext, capability
from agent_runtime.settings import AgentSettings
from agent_runtime.worker import Worker
from bus import Client, TaskCreate
from bus.access import ROLES, users
from bus.connection import connect
from bus.filters import TaskFilter
from bus.ids import check_pool
from bus.names import DATA_FIELD, PoolNames
from bus.states import TaskPriority, TaskStatus
from bus.task_pages import TaskPages
from dispatcher.audit.auditor import Auditor
from tests.dispatcher.api.conftest import serving
from tests.dispatcher.api.http_agent import HttpAgent
from tests.support.bus import running_dispatcher

PASSWORD = "a-secret"  # noqa: S105 - of a server that lives as long as a test


class Text(BaseModel):
    text: str


class Crew(Agent):
    slots = 4

    @capability("text.count")
    async def count(self, task: Text, ctx: TaskContext) -> int:
        await ctx.progress(0.5, "half way")
        return len(task.text.split())

    @capability("boom")
    async def boom(self, task: None) -> None:
        raise RuntimeError("boom")

    @capability("slow")
    async def slow(self, task: None) -> None:
        await asyncio.sleep(60)


@pytest.fixture
def names(pool: str) -> PoolNames:
    return PoolNames(check_pool(pool))


@pytest.fixture
async def urls(redis: Redis, redis_url: str, names: PoolNames) -> AsyncIterator[dict[str, str]]:
    """Provide the server's URL for each role, and for the agent `crew-1`; each user as `callboard acl` prints it."""
    found = users(names, ROLES, ("crew-1",), durability=True)
    for user in found:
        _, name, *rules = _words(user.line(PASSWORD))
        await tell(redis, "ACL", "SETUSER", name, "reset", *rules)
    yield {user.role: redis_url.replace("://", f"://{user.name}:{PASSWORD}@") for user in found}
    await tell(redis, "ACL", "DELUSER", *(user.name for user in found))


async def tell(redis: Any, *words: str) -> None:
    await redis.execute_command(*words)


def _words(line: str) -> list[str]:
    return re.findall(r"\([^)]*\)|\S+", line)


@pytest.fixture
async def working(urls: dict[str, str], pool: str) -> AsyncIterator[Client]:
    """Provide a client in a pool with a dispatcher and an agent, each with a user of its own."""
    worker = Worker(Crew(), AgentSettings(redis_url=urls["agent"], pool=pool, agent_id="crew-1"))
    stop = asyncio.Event()
    async with (
        running_dispatcher(urls["dispatcher"], pool, max_pending=("1000",)),
        Client(urls["client"], pool=pool) as bus,
    ):
        running = asyncio.create_task(worker.run(stop))
        async with asyncio.timeout(30):
            await worker.ready.wait()
        yield bus
        stop.set()
        await running


async def test_a_client_an_agent_and_a_dispatcher_do_all_they_must_with_their_own_users(
    working: Client, urls: dict[str, str], names: PoolNames, caplog: pytest.LogCaptureFixture
) -> None:
    bus = working
    handle = await bus.submit("text.count", {"text": "a b"})
    assert await handle.result(timeout=30) == 2
    keyed = [await bus.submit("text.count", {"text": "a"}, key="k") for _ in range(2)]
    assert [await one.result(timeout=30) for one in keyed] == [1, 1]
    many = await bus.submit_many(TaskCreate(capability="text.count", payload={"text": "a"}) for _ in range(50))
    assert [await one.result(timeout=30) for one in many] == [1] * 50
    record = await bus.get(handle.id)
    assert record.status is TaskStatus.COMPLETED
    slow = await bus.submit("slow")
    report = await bus.cancel_and_wait([slow.id])
    assert report.cancelled == (slow.id,)
    bad = await bus.submit("boom", max_attempts=1)
    with pytest.raises(Exception, match="boom"):
        await bad.result(timeout=30)
    assert [task.id for task in await bus.dead.list("", limit=10)] == [bad.id]
    assert (await bus.dead.purge([bad.id])).done == (bad.id,)
    waiting = await bus.submit("nobody.can")
    await bus.get(waiting.id, patience=5)
    await bus.reprioritise([waiting.id], TaskPriority.HIGH)
    assert (await bus.explain(waiting.id)).task_id == waiting.id
    assert await bus.cancel_matching("capability=nobody.can", "no need") == 1
    request = await bus.pause_agent("crew-1", "a pause")
    await bus.wait_agent("crew-1", request, timeout=10)
    await bus.resume_agent("crew-1")
    await bus.schedules.list()
    assert (await bus.queue_status()).pool == names.pool
    async with connect(urls["dispatcher"], name="doctor") as redis:
        assert await Auditor(redis, names, pause_s=0.2).run() == []
    assert "NOPERM" not in caplog.text
    assert "refuses" not in caplog.text


async def test_a_reader_sees_everything(working: Client, urls: dict[str, str], names: PoolNames) -> None:
    done = await working.submit("text.count", {"text": "a b"})
    await done.result(timeout=30)
    async with Client(urls["reader"], pool=names.pool) as bus, connect(urls["reader"], name="reader") as redis:
        assert (await bus.get(done.id)).output == 2
        assert [task.id for task in await bus.list_tasks()] == [done.id]
        assert [agent.agent_id for agent in await bus.agents()] == ["crew-1"]
        await bus.queue_status()
        await bus.dead.list("", limit=10)
        page = await TaskPages(redis, names).page(TaskFilter())
        assert [task.id for task in page.tasks] == [done.id]
        assert await redis.xrange(names.events)


@pytest.mark.usefixtures("working")
async def test_the_api_serves_with_its_own_user(
    urls: dict[str, str], pool: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(urls["api"], pool) as api:
        answer = await api.post("/tasks/dispatch", json={"capability": "text.count", "payload": {"text": "a"}})
        task_id = answer.json()["tasks"][0]["id"]
        assert (await api.get(f"/tasks/{task_id}/result", params={"wait": 10})).json()["status"] == "COMPLETED"
        assert (await api.get("/status")).status_code == 200
        assert (await api.get("/agents/workload")).status_code == 200
        assert (await api.get("/tasks")).json()
        agent = HttpAgent(api, "over-http")
        await agent.register("http.x")
        given = await api.post("/tasks/dispatch", json={"capability": "http.x"})
        assert given.status_code == 202
        (work,) = await agent.poll()
        assert (await agent.beat(work)).status_code == 200
        assert (await agent.say("result", work, output=1)).status_code < 300
    assert "NOPERM" not in caplog.text


@dataclass
class Seat:
    """Where somebody who is logged in tries something."""

    redis: Redis
    names: PoolNames


Deed = Callable[[Seat], Awaitable[object]]


FORBIDDEN: dict[str, list[tuple[str, Deed]]] = {
    "agent": [
        ("read another's assignments", lambda at: at.redis.xread({at.names.assignments("crew-2"): "0"})),
        ("read another's instructions", lambda at: at.redis.xrange(at.names.control("crew-2"))),
        ("read its own record", lambda at: at.redis.hget(at.names.agent("crew-1"), "record")),
        ("write to its own assignments", lambda at: at.redis.xadd(at.names.assignments("crew-1"), {"a": "b"})),
        ("write a task's state", lambda at: at.redis.hset(at.names.task("a.b"), "state", "COMPLETED/1//")),
        ("read a task", lambda at: at.redis.hget(at.names.task("a.b"), "state")),
        ("submit", lambda at: at.redis.xadd(at.names.submissions(TaskPriority.LOW), {"a": "b"})),
        ("command", lambda at: at.redis.xadd(at.names.commands, {"a": "b"})),
        ("read what others report", lambda at: at.redis.xrange(at.names.results)),
        ("delete what others report", lambda at: at.redis.delete(at.names.results)),
        ("trim what others report", lambda at: at.redis.xtrim(at.names.results, maxlen=0)),
        ("run a script", lambda at: at.redis.eval("return 1", 0)),
        ("load a script", lambda at: at.redis.script_load("return 1")),
        ("list keys", lambda at: at.redis.keys("*")),
        ("read another pool", lambda at: at.redis.xread({PoolNames(check_pool("other")).assignments("crew-1"): "0"})),
    ],
    "reader": [
        ("submit", lambda at: at.redis.xadd(at.names.submissions(TaskPriority.LOW), {"a": "b"})),
        ("command", lambda at: at.redis.xadd(at.names.commands, {"a": "b"})),
        ("write a task's state", lambda at: at.redis.hset(at.names.task("a.b"), "state", "COMPLETED/1//")),
        ("delete a task", lambda at: at.redis.delete(at.names.task("a.b"))),
        ("write a task's state by a script", lambda at: at.redis.eval(WRITE, 1, at.names.task("a.b"))),
        ("read the tokens", lambda at: at.redis.hgetall("callboard:tokens")),
        ("flush", lambda at: at.redis.flushall()),
    ],
    "client": [
        ("report results", lambda at: at.redis.xadd(at.names.results, {DATA_FIELD: "{}"})),
        ("beat for an agent", lambda at: at.redis.xadd(at.names.heartbeats, {DATA_FIELD: "{}"})),
        ("register an agent", lambda at: at.redis.xadd(at.names.registrations, {DATA_FIELD: "{}"})),
        ("write a task's state", lambda at: at.redis.hset(at.names.task("a.b"), "state", "COMPLETED/1//")),
        ("write a task's state by a script", lambda at: at.redis.eval(WRITE, 1, at.names.task("a.b"))),
        ("delete a task", lambda at: at.redis.delete(at.names.task("a.b"))),
        ("delete submissions", lambda at: at.redis.delete(at.names.submissions(TaskPriority.LOW))),
        ("lead", lambda at: at.redis.set(at.names.leader, "me")),
        ("write to an agent", lambda at: at.redis.xadd(at.names.assignments("crew-1"), {"a": "b"})),
        ("raise a bound", lambda at: at.redis.hset(at.names.bounds, "*", 9)),
        ("read the tokens", lambda at: at.redis.hgetall("callboard:tokens")),
        ("change the server", lambda at: at.redis.config_set("appendonly", "no")),
    ],
    "api": [
        ("write a task's state", lambda at: at.redis.hset(at.names.task("a.b"), "state", "COMPLETED/1//")),
        ("write to an agent", lambda at: at.redis.xadd(at.names.assignments("crew-1"), {"a": "b"})),
        ("lead", lambda at: at.redis.set(at.names.leader, "me")),
        ("read the server's settings", lambda at: at.redis.config_get("*")),
    ],
    "dispatcher": [
        ("read the tokens", lambda at: at.redis.hgetall("callboard:tokens")),
        ("touch another pool", lambda at: at.redis.get(PoolNames(check_pool("other")).leader)),
        ("flush", lambda at: at.redis.flushall()),
        ("change the server", lambda at: at.redis.config_set("appendonly", "no")),
    ],
}
WRITE = "return redis.call('HSET', KEYS[1], 'state', 'COMPLETED/1//')"
CASES = {f"{role}: {what}": (role, deed) for role, deeds in FORBIDDEN.items() for what, deed in deeds}


@pytest.mark.parametrize(("role", "deed"), CASES.values(), ids=CASES)
async def test_what_a_role_must_not_do_is_refused(
    role: str, deed: Deed, urls: dict[str, str], names: PoolNames
) -> None:
    async with connect(urls[role], name="test") as redis:
        assert await redis.ping()
        with pytest.raises(ResponseError, match=r"no permissions|ACL failure|can't"):
            await deed(Seat(redis, names))


async def test_who_has_no_password_yet_cannot_log_in(redis: Redis, redis_url: str, names: PoolNames) -> None:
    (user,) = users(names, ("reader",))
    _, name, *rules = _words(user.line(None))
    await tell(redis, "ACL", "SETUSER", name, "reset", *rules)
    try:
        async with connect(redis_url.replace("://", f"://{name}:x@"), name="test") as nobody:
            with pytest.raises(Exception, match="invalid username-password"):
                await nobody.ping()
    finally:
        await tell(redis, "ACL", "DELUSER", name)
