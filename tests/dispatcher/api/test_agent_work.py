"""Agents that speak only HTTP: being given work, and saying how it goes; two API processes take turns."""

import asyncio
from functools import partial
from time import perf_counter, time
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from bus import Client
from bus.records import TaskInDB
from bus.states import FailureReason, TaskStatus
from dispatcher.api.arrivals import READERS
from dispatcher.api.routers import agent_work
from dispatcher.api.service import ApiService
from dispatcher.api.settings import ApiSettings
from tests.dispatcher.api.conftest import Alternating, assert_problem, serving, submitted
from tests.dispatcher.api.http_agent import HttpAgent
from tests.dispatcher.api.test_events import CountsOpen, following
from tests.support.bus import running_dispatcher, wire_agent
from tests.support.waiting import eventually


@pytest.fixture
async def agent(api: Alternating) -> HttpAgent:
    """Provide an agent that has signed in."""
    agent = HttpAgent(api)
    assert (await agent.register()).status_code == 201
    return agent


async def reaches(bus: Client, task_id: str, status: TaskStatus) -> TaskInDB:
    """Return a task's record once it has a status."""

    async def record() -> TaskInDB | None:
        found = await bus.get(task_id)
        return found if found.status is status else None

    found = await eventually(record)
    assert found is not None
    return found


async def test_a_task_is_handed_out_begun_and_done(agent: HttpAgent, api: Alternating, bus: Client) -> None:
    task_id = await submitted(api, payload={"text": "a b", "nothing": None}, metadata={"who": "me"})
    (given,) = await agent.poll()
    assert (given["task_id"], given["attempt"]) == (task_id, 1)
    assert given["task"]["payload"] == {"text": "a b", "nothing": None}
    assert "version" not in given, "what says nothing is left out"
    assert given["task"]["metadata"] == {"who": "me"}
    assert await agent.told(given) == []
    assert (await agent.say("start", given)).json() == {"task_id": task_id, "attempt": 1, "stored": "start"}
    await reaches(bus, task_id, TaskStatus.RUNNING)
    said = await agent.say("progress", given, progress=0.5, note="half way")
    assert (said.status_code, said.json()["stored"]) == (202, "progress")

    async def half_way() -> bool:
        record = await bus.get(task_id)
        return (record.progress, record.note) == (0.5, "half way")

    await eventually(half_way)
    assert (await agent.say("result", given, output={"words": 2}, duration=0.25)).status_code == 202
    record = await reaches(bus, task_id, TaskStatus.COMPLETED)
    assert record.output == {"words": 2}
    assert record.attempts[0].agent_id == "http"


async def test_what_it_offers_is_recorded_and_its_endpoint_never_called(api: Alternating, bus: Client) -> None:
    answer = await HttpAgent(api, "full").register(
        capabilities=[
            {"name": "translate", "version": "2.1", "attributes": {"lang": ["de"]}, "rate": "5/s", "concurrency": 2}
        ],
        slots=3,
        resources={"gpu": 2},
        rate="10/s",
        attributes={"region": "eu"},
        accepts="tags contains night",
        endpoint="http://127.0.0.1:1/nobody",
        metadata={"host": "box"},
        heartbeat_interval=2,
        lease=10,
    )
    told = answer.json()
    assert (answer.status_code, told["agent_id"], told["slots"]) == (201, "full", 3)
    assert (told["heartbeat_interval"], told["lease"], told["capabilities"]) == (2, 10, ["translate"])
    info = await bus.agent("full")
    assert info.session == told["session"]
    assert info.capabilities[0].version == "2.1"
    assert info.capabilities[0].attributes == {"lang": ["de"]}
    assert (info.slots, info.resources, info.rate, info.lease) == (3, {"gpu": 2}, "10/s", 10)
    assert info.metadata == {"protocol": "http", "host": "box", "endpoint": "http://127.0.0.1:1/nobody"}
    plan = await api.post("/tasks/plan", json={"capability": "translate>=2[lang contains de]", "tags": ["night"]})
    assert plan.json()["eligible"] == 1


async def test_an_assignment_is_handed_out_again_until_it_is_acknowledged(
    agent: HttpAgent, api: Alternating, bus: Client
) -> None:
    begun, ended, held = [await submitted(api) for _ in range(3)]

    async def all_three() -> list[Any]:
        found = await agent.poll()
        return found if len(found) == 3 else []

    given = {one["task_id"]: one for one in await eventually(all_three)}
    assert len(await agent.poll()) == len(await agent.poll()) == 3  # by either process
    assert await agent.poll(0, after=agent.polled) == []

    await agent.say("start", given[begun])
    await reaches(bus, begun, TaskStatus.RUNNING)
    assert {one["task_id"] for one in await agent.poll()} == {ended, held}
    await agent.say("result", given[ended], output=1)
    await reaches(bus, ended, TaskStatus.COMPLETED)
    assert {one["task_id"] for one in await agent.poll()} == {held}
    await agent.beat(given[held], given[begun])
    assert await agent.poll(0) == await agent.poll(0) == []
    await agent.beat(given[begun])
    assert {one["task_id"] for one in await agent.poll()} == {held}


async def test_no_more_are_handed_out_than_asked_for_and_the_cursor_leaves_none_out(
    agent: HttpAgent, api: Alternating
) -> None:
    ids = {await submitted(api) for _ in range(5)}
    seen: set[str] = set()
    while len(seen) < 5:
        found = await agent.poll(max=2, after=agent.polled or "0-0")
        assert len(found) <= 2
        assert seen.isdisjoint(one["task_id"] for one in found)
        seen |= {one["task_id"] for one in found}
    assert seen == ids


@pytest.mark.alone
async def test_a_poll_wakes_with_the_assignment_and_not_when_it_looks_again(
    agent: HttpAgent, api: Alternating, redis: Redis
) -> None:
    idle = [HttpAgent(api, f"idle-{n}") for n in range(2 * READERS)]
    await asyncio.gather(*(one.register(f"of.{one.id}") for one in idle))
    others = [asyncio.create_task(one.poll(30)) for one in idle]
    await eventually(partial(_all_blocked, redis))  # no reader is about to look by itself
    late = []
    for _ in range(9):
        polling = asyncio.create_task(agent.poll(10))
        await asyncio.wait([polling], timeout=0.05)  # it is under way: nothing tells when
        await submitted(api)
        (given,) = await polling
        late.append(time() - given["assigned_at"] / 1000)  # the server is on this machine
        await agent.say("result", given, output=1)
        await eventually(partial(_is_empty, agent))
    for one in others:
        one.cancel()
    assert sorted(late)[4] < 0.2, late  # 5 ms on a machine with nothing else to do; the readers look again each second


async def _all_blocked(redis: Redis) -> bool:
    """Tell whether all readers of two processes are blocked; fail if there are more of them."""
    clients: list[Any] = await redis.client_list()
    blocked = [one for one in clients if one["name"] == "callboard-api-live" and "b" in one["flags"]]
    assert len(blocked) <= 2 * READERS
    return len(blocked) == 2 * READERS


async def _of_attempt(agent: HttpAgent, task_id: str, attempt: int) -> Any:
    found = await agent.poll(0)
    return next((one for one in found if (one["task_id"], one["attempt"]) == (task_id, attempt)), None)


async def _is_empty(agent: HttpAgent) -> bool:
    return await agent.poll(0) == []


@pytest.mark.alone
async def test_many_agents_poll_at_once_with_a_few_connections(api: Alternating, redis: Redis) -> None:
    agents = [HttpAgent(api, f"many-{n}") for n in range(60)]
    await asyncio.gather(*(one.register(f"of.{one.id}") for one in agents))
    polling = [asyncio.create_task(one.poll(20)) for one in agents]
    await eventually(partial(_all_blocked, redis))
    body = {"tasks": [{"capability": f"of.{one.id}"} for one in agents]}
    assert (await api.post("/tasks/dispatch", json=body)).status_code == 202
    began = perf_counter()
    for found, one in zip(await asyncio.gather(*polling), agents, strict=True):
        assert [given["task"]["capability"] for given in found] == [f"of.{one.id}"]
    assert perf_counter() - began < 2


async def test_how_a_task_fails_is_the_agents_to_say(agent: HttpAgent, api: Alternating, bus: Client) -> None:
    wrong = {"type": "NoSuchOrder", "message": "17", "details": {"order": 17}}
    for says, reason, attempts in (
        ({"error": wrong, "rejected": True}, FailureReason.REJECTED, 1),
        ({"error": wrong, "retryable": False}, FailureReason.ERROR, 1),
        ({"error": wrong, "timed_out": True}, FailureReason.TIMEOUT, 2),
        ({"error": wrong, "retry_after": 0.01}, FailureReason.ERROR, 2),
    ):
        task_id = await submitted(api, max_attempts=2)
        for attempt in range(1, attempts + 1):
            given = await eventually(partial(_of_attempt, agent, task_id, attempt))
            assert (await agent.say("result", given, **says)).status_code == 202
        record = await reaches(bus, task_id, TaskStatus.FAILED)
        assert (record.reason, len(record.attempts)) == (reason, attempts)
        assert record.error is not None
        assert (record.error.type, record.error.details) == ("NoSuchOrder", {"order": 17})


async def test_what_was_not_begun_is_handed_back(
    agent: HttpAgent, api: Alternating, redis: Redis, pool: str, bus: Client
) -> None:
    task_id = await submitted(api)
    (given,) = await agent.poll()
    async with wire_agent(redis, pool, "text.count") as other:
        await bus.pause_agent("http")
        answer = await agent.say("result", given, returned=True)
        assert (answer.status_code, answer.json()["stored"]) == (202, "return")
        assert (await other.next()).task_id == task_id


async def test_what_has_begun_is_not_handed_back(agent: HttpAgent, api: Alternating, bus: Client) -> None:
    task_id = await submitted(api)
    (given,) = await agent.poll()
    await agent.say("start", given)

    async def running() -> bool:
        return (await bus.get(task_id)).status is TaskStatus.RUNNING

    await eventually(running)
    assert_problem(await agent.say("result", given, returned=True), "invalid", 422, "body.returned")


async def test_an_agent_has_not_the_name_of_an_operation(api: Alternating) -> None:
    assert_problem(await HttpAgent(api, "workload").register(), "invalid", 422, "body.agent_id")


async def test_a_poll_of_a_session_that_is_over_ends_soon(
    agent: HttpAgent, api: Alternating, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_work, "LOOK_AGAIN_S", 0.05)
    poll = asyncio.create_task(agent.ask(30))
    await HttpAgent(api).register()
    assert_problem(await asyncio.wait_for(poll, 10), "superseded", 409)


async def test_more_time_is_asked_for(agent: HttpAgent, api: Alternating, bus: Client, redis: Redis) -> None:
    task_id = await submitted(api, run_timeout=60)
    (given,) = await agent.poll()
    await agent.say("progress", given, extend=120, waiting=True)

    async def extended() -> bool:
        return (await bus.get(task_id)).waiting

    await eventually(extended)
    run: Any = await redis.hget(f"callboard:{{{task_id.partition('.')[0]}}}:task:{task_id}", "run")
    assert b'"extended_ms":120000' in run


async def test_output_is_followed_piece_by_piece_as_it_comes(agent: HttpAgent, api: Alternating) -> None:
    task_id = await submitted(api)
    (given,) = await agent.poll()
    async with following(api, f"/tasks/{task_id}/events") as events:
        assert (await anext(events))[0] == "state"
        for piece in ("once ", "upon ", "a time"):
            assert (await agent.say("progress", given, chunk=piece)).status_code == 202
        await agent.say("result", given, output="once upon a time")
        pieces = [data["chunk"] async for _, _, data in events if "chunk" in data]
    assert pieces == ["once ", "upon ", "a time"]
    assert_problem(await agent.say("progress", given, chunk="x" * 65_537), "invalid", 422, "body.chunk")


async def test_a_result_after_the_lease_is_refused_and_changes_nothing(
    api: Alternating, redis: Redis, pool: str, bus: Client
) -> None:
    zombie = HttpAgent(api, "zombie")
    await zombie.register(heartbeat_interval=0.1, lease=0.6)
    task_id = await submitted(api)
    (given,) = await zombie.poll()
    await zombie.say("start", given)
    async with wire_agent(redis, pool, "text.count") as other:
        second = await other.next()
        assert (second.task_id, second.attempt) == (task_id, 2)
        for what, fields in (("result", {"output": "late"}), ("start", {}), ("progress", {"progress": 0.5})):
            assert_problem(await zombie.say(what, given, **fields), "stale-attempt", 409)
        forged = {**given, "attempt": 2}
        assert_problem(await zombie.say("result", forged, output="late"), "stale-attempt", 409)
        await other.complete(second, "right")
    record = await reaches(bus, task_id, TaskStatus.COMPLETED)
    assert record.output == "right"
    assert_problem(await zombie.say("result", given, output="late"), "stale-attempt", 409)


async def test_a_session_that_was_replaced_may_neither_poll_nor_beat_nor_report(agent: HttpAgent, api: Any) -> None:
    await submitted(api)
    (given,) = await agent.poll()
    later = HttpAgent(api)
    await later.register()
    assert_problem(await agent.ask(), "superseded", 409)
    assert_problem(await agent.beat(given), "superseded", 409)
    (again,) = await later.poll()
    assert_problem(await agent.say("result", given, output=1), "stale-attempt", 409)
    assert (again["task_id"], again["attempt"]) == (given["task_id"], 2)
    stranger = HttpAgent(api)
    stranger.session = "never-signed-in"
    assert_problem(await stranger.ask(), "session-over", 410)
    assert_problem(await stranger.beat(), "session-over", 410)
    assert_problem(await agent.register(session=agent.session), "superseded", 409)


async def test_a_leader_that_dies_is_not_noticed(redis_url: str, pool: str) -> None:
    async with serving(redis_url, pool) as one, serving(redis_url, pool) as two, Client(redis_url, pool=pool) as bus:
        api = Alternating(one, two)
        agent = HttpAgent(api)
        async with running_dispatcher(redis_url, pool):
            await agent.register()
            task_id = await submitted(api)
            (given,) = await agent.poll()
        assert (await agent.beat(given)).status_code == 200
        assert (await agent.say("result", given, output=1)).status_code == 202
        polling = asyncio.create_task(agent.poll(20))
        later = await submitted(api)
        async with running_dispatcher(redis_url, pool):
            await reaches(bus, task_id, TaskStatus.COMPLETED)
            assert later in {found["task_id"] for found in await polling}


async def test_fifty_polls_do_not_delay_the_end(redis_url: str, led: str) -> None:
    counter = CountsOpen()
    service = ApiService(ApiSettings(redis_url=redis_url, pool=led, port=0), observer=counter)
    stop, ready = asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(service.run(stop, ready))
    await ready.wait()
    limits = httpx.Limits(max_connections=200)
    async with httpx.AsyncClient(base_url=f"{service.url}/api/v1", timeout=20, limits=limits) as client:
        agents = [HttpAgent(client, f"a{n}") for n in range(50)]
        await asyncio.gather(*(one.register() for one in agents))
        polling = [asyncio.create_task(one.poll(20)) for one in agents]
        await eventually(lambda: counter.open == 50)
        began = asyncio.get_running_loop().time()
        stop.set()
        await running
        assert asyncio.get_running_loop().time() - began < 2
        assert await asyncio.gather(*polling) == [[]] * 50


async def test_what_is_wrong_is_told(agent: HttpAgent, api: Alternating) -> None:
    task_id = await submitted(api)
    (given,) = await agent.poll()
    for fields, field in (
        ({"output": 1, "error": {"message": "both"}}, "body"),
        ({"rejected": True}, "body"),
        ({"abandoned": True}, "body"),
        ({"attempt": 0}, "body.attempt"),
        ({"session": "no spaces"}, "body.session"),
        ({"nonsense": 1}, "body.nonsense"),
        ({"error": {"message": "x"}, "retry_after": -1}, "body.retry_after"),
    ):
        assert_problem(await agent.say("result", given, **fields), "invalid", 422, field)
    deep = b'{"session":"%b","attempt":1,"output":%b}' % (agent.session.encode(), b"[" * 199 + b"]" * 199)
    answer = await api.post(f"/tasks/{task_id}/result", content=deep, headers={"Content-Type": "application/json"})
    assert_problem(answer, "invalid", 422)
    nowhere = {"task_id": task_id + "x", "attempt": 1}
    for what in ("start", "progress", "result"):
        assert_problem(await agent.say(what, nowhere), "unknown-task", 404)
        assert_problem(await agent.say(what, {"task_id": "elsewhere.x", "attempt": 1}), "unknown-pool", 404)
    assert_problem(await agent.ask(after="yesterday"), "invalid", 422, "query.after")
    assert_problem(await agent.ask(max=0), "invalid", 422, "query.max")
    stranger = HttpAgent(api, "nobody")
    stranger.session = "s"
    assert_problem(await stranger.ask(), "unknown-agent", 404)
    assert_problem(await agent.ask(pool="elsewhere"), "unknown-pool", 404)
    big = "x" * (1024 * 1024 - 120)
    assert_problem(await agent.say("result", given, output=big), "body-too-large", 413)


async def test_as_many_polls_wait_as_may(redis_url: str, led: str) -> None:
    async with serving(redis_url, led, max_open=1) as api:
        agent = HttpAgent(api)
        await agent.register()
        for _ in range(2):  # what is over leaves its place
            answers = sorted(await asyncio.gather(agent.ask(0.3), agent.ask(0.3)), key=lambda one: one.status_code)
            assert answers[0].status_code == 200
            assert_problem(answers[1], "busy", 503)
            assert await agent.poll(0) == []
