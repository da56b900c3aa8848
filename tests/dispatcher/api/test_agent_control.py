"""Agents that speak only HTTP: what they are told, how they leave, and what they may not say; two processes in turn."""

import asyncio
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from bus import AgentStatus, Client, UnknownAgentError
from bus.agent_requests import RequestState
from bus.messages import Unregister
from bus.states import TaskStatus
from dispatcher.api.mailbox import Mailbox, Post
from dispatcher.api.tokens import Tokens
from tests.dispatcher.api.conftest import Alternating, assert_problem, serving, submitted
from tests.dispatcher.api.http_agent import HttpAgent
from tests.dispatcher.api.test_admission import bearer
from tests.support.bus import wire_agent
from tests.support.waiting import eventually


@pytest.fixture
async def agent(api: Alternating) -> HttpAgent:
    """Provide an agent that has signed in."""
    agent = HttpAgent(api)
    assert (await agent.register()).status_code == 201
    return agent


async def told(agent: HttpAgent, kind: str, *held: Any, **fields: Any) -> Any:
    """Beat until the agent is told something of a kind, and return that."""

    async def found() -> Any:
        return next((one for one in await agent.told(*held, **fields) if one["type"] == kind), None)

    return await eventually(found)


async def gone(bus: Client, agent_id: str) -> bool:
    try:
        await bus.agent(agent_id)
    except UnknownAgentError:
        return True
    return False


async def test_a_cancel_is_told_again_until_it_is_confirmed(agent: HttpAgent, api: Alternating, bus: Client) -> None:
    task_id = await submitted(api)
    (given,) = await agent.poll()
    await agent.say("start", given)
    await api.post("/tasks/cancel", json={"task_ids": [task_id], "reason": "no need"})
    first = await told(agent, "cancel", given)
    assert (first["task_id"], first["attempt"], first["confirm"], first["reason"]) == (task_id, 1, True, "no need")
    assert first["grace"] > 0
    for _ in range(2):  # by either process, as long as it holds the attempt
        assert [one["type"] for one in await agent.told(given)] == ["cancel"]
    answer = await agent.beat(given)
    assert await agent.told(given, after=answer.json()["cursor"]) == []
    await agent.say("progress", given, cancel="acknowledged")
    assert (await agent.say("result", given, cancelled=True)).status_code == 202

    async def cancelled() -> bool:
        return (await bus.get(task_id)).status is TaskStatus.CANCELLED

    await eventually(cancelled)
    assert await agent.told() == []
    record = await bus.get(task_id)
    assert record.cancellation is not None
    assert record.cancellation.acknowledged_at is not None


async def test_an_attempt_that_is_no_longer_current_is_told_to_stop(agent: HttpAgent) -> None:
    stale = {"task_id": "default.gone", "attempt": 3}
    stop = await told(agent, "cancel", stale)
    assert (stop["task_id"], stop["attempt"], stop["confirm"]) == ("default.gone", 3, False)
    assert "reason" in stop
    assert "number" not in stop, "what says nothing is left out"


async def test_a_pause_is_heeded_confirmed_and_ended(agent: HttpAgent, api: Alternating, bus: Client) -> None:
    task_id = await submitted(api)
    (given,) = await agent.poll()
    request = await bus.pause_agent("http", "disk swap")
    pause = await told(agent, "pause", given)
    assert pause["reason"] == "disk swap"
    assert {one["type"] for one in await agent.told(given)} == {"pause", "recall"}
    await agent.beat(given, heeded=pause["number"], paused=True)
    assert (await bus.wait_agent("http", request, timeout=5)).state is RequestState.DONE
    assert [one["type"] for one in await agent.told(given, heeded=pause["number"], paused=True)] == ["recall"]
    await agent.say("result", given, returned=True)
    await bus.resume_agent("http")
    assert (await told(agent, "resume", heeded=pause["number"], paused=True))["number"] > pause["number"]
    (again,) = await agent.poll()
    assert (again["task_id"], again["attempt"]) == (task_id, 2)


async def test_a_change_of_operators_is_made_by_registering_again(agent: HttpAgent, bus: Client) -> None:
    session = agent.session
    await agent.register("text.count", "text.shout", session=session, attributes={"region": "eu", "old": 1})
    request = await bus.update_agent(
        "http", attributes={"region": "us"}, remove_attributes=["old"], disable=["text.count"], slots=3
    )
    change = await told(agent, "update")
    assert change["overrides"]["disabled"] == ["text.count"]
    answer = await agent.register("text.count", "text.shout", session=session, attributes={"region": "eu", "old": 1})
    assert (answer.json()["session"], answer.json()["slots"]) == (session, 3)
    assert answer.json()["capabilities"] == ["text.shout"]
    assert (await bus.wait_agent("http", request, timeout=5)).state is RequestState.DONE
    info = await bus.agent("http")
    assert ([one.name for one in info.capabilities], info.attributes) == (["text.shout"], {"region": "us"})
    assert await agent.told() == await agent.told() == [], "it is known"
    only = await agent.register("text.count", session=session)
    assert only.json()["capabilities"] == ["text.count"], "nothing else would be left"
    later = HttpAgent(agent.api)
    assert (await later.register("text.count", "text.shout")).json()["slots"] == 3, "its next sessions, too"


async def test_registering_again_with_the_session_keeps_its_tasks(agent: HttpAgent, api: Alternating) -> None:
    await submitted(api)
    (given,) = await agent.poll()
    session, revision = agent.session, (await agent.register("text.count", session=agent.session)).json()["revision"]
    later = (await agent.register("text.count", "text.shout", session=session)).json()
    assert (later["session"], later["revision"] > revision) == (session, True)
    assert [one["attempt"] for one in await agent.poll()] == [given["attempt"]]
    assert (await agent.say("result", given, output=1)).status_code == 202


async def test_who_leaves_finishes_what_it_has_and_is_forgotten(
    agent: HttpAgent, api: Alternating, bus: Client
) -> None:
    task_id = await submitted(api)
    (given,) = await agent.poll()
    assert (await agent.say("start", given)).status_code == 202
    answer = await agent.leave(session=agent.session)
    assert (answer.status_code, answer.json()) == (202, {"agent_id": "http", "requested": "drain"})
    drain = await told(agent, "drain", given)
    assert not (await agent.beat(given, heeded=drain["number"], draining=True)).json()["over"]
    later = await submitted(api)
    assert await agent.poll(0.2) == []
    await agent.say("result", given, output=1)

    async def over() -> bool:
        answer = await agent.beat(heeded=drain["number"], draining=True)
        return answer.status_code == 200 and bool(answer.json()["over"])

    await eventually(over)
    await eventually(lambda: gone(bus, "http"))
    assert (await bus.get(task_id)).status is TaskStatus.COMPLETED
    assert (await bus.get(later)).status is TaskStatus.PENDING
    assert_problem(await agent.beat(), "unknown-agent", 404)


async def test_who_is_to_leave_gets_nothing_more_and_what_it_was_not_given_is_handed_back(
    agent: HttpAgent, api: Alternating, bus: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = await submitted(api)
    (given,) = await agent.poll()
    waiting = await submitted(api)
    await eventually(lambda: _has(bus, waiting, TaskStatus.ASSIGNED))
    await agent.leave()
    drain = await told(agent, "drain", given)
    looks = 0
    post = Mailbox.post

    async def counted(*arguments: Any) -> Post:
        nonlocal looks
        looks += 1
        return await post(*arguments)

    monkeypatch.setattr(Mailbox, "post", counted)
    assert await agent.poll(0.3) == []
    assert looks <= 3, "it waits, whatever lies there"
    assert not (await agent.beat(given, heeded=drain["number"])).json()["over"]
    await eventually(lambda: _has(bus, waiting, TaskStatus.PENDING))
    record = await bus.get(waiting)
    assert [(one.agent_id, one.outcome) for one in record.attempts] == [("http", "returned")]
    await agent.say("result", given, output=1)
    assert (await agent.beat(heeded=drain["number"])).json()["over"]
    await eventually(lambda: _has(bus, begun, TaskStatus.COMPLETED))


async def _has(bus: Client, task_id: str, status: TaskStatus) -> bool:
    return (await bus.get(task_id, patience=5)).status is status


async def test_with_force_its_tasks_go_to_others_at_once(
    agent: HttpAgent, api: Alternating, redis: Redis, pool: str, bus: Client
) -> None:
    task_id = await submitted(api)
    (given,) = await agent.poll()
    await agent.say("start", given)
    async with wire_agent(redis, pool, "text.count") as other:
        answer = await agent.leave(force=True)
        assert (answer.status_code, answer.json()["requested"]) == (202, "unregister")
        again = await other.next()
        assert (again.task_id, again.attempt) == (task_id, 2)
        assert_problem(await agent.say("result", given, output="late"), "stale-attempt", 409)
        await eventually(lambda: gone(bus, "http"))
        assert_problem(await agent.ask(), "unknown-agent", 404)
        assert_problem(await agent.leave(), "unknown-agent", 404)


async def test_an_agent_of_the_wire_is_deleted_when_it_has_signed_out(
    api: Alternating, redis: Redis, pool: str, bus: Client
) -> None:
    async with wire_agent(redis, pool, "text.count") as other:
        assert (await api.delete("/agents/wire")).status_code == 202
        assert (await other.control.get()).root.type == "drain"
        assert (await bus.agent("wire")).status is AgentStatus.DRAINING
        await other.publish(other.names.registrations, Unregister(agent_id="wire", session="s1"))
        await eventually(lambda: gone(bus, "wire"))


async def test_a_lost_agent_and_a_stopped_one_are_deleted_at_once(api: Alternating, bus: Client) -> None:
    lost, stopped = HttpAgent(api, "lost"), HttpAgent(api, "stopped")
    await lost.register(heartbeat_interval=0.1, lease=0.3)
    await stopped.register()
    await bus.drain_agent("stopped")
    number = (await told(stopped, "drain"))["number"]

    async def away() -> bool:
        await stopped.beat(heeded=number)
        found = [(await bus.agent(name)).status for name in ("lost", "stopped")]
        return found == [AgentStatus.ERROR, AgentStatus.STOPPED]

    await eventually(away)
    assert_problem(await stopped.beat(), "session-over", 410)
    for agent in (lost, stopped):
        assert (await agent.leave()).status_code == 202

    async def both_gone() -> bool:
        return await gone(bus, "lost") and await gone(bus, "stopped")

    await eventually(both_gone)


async def test_only_the_session_that_is_named_is_deleted(agent: HttpAgent, api: Alternating) -> None:
    later = HttpAgent(api)
    await later.register()
    assert_problem(await agent.leave(session=agent.session), "superseded", 409)
    assert_problem(await agent.leave(session="another"), "session-over", 410)
    assert (await later.beat()).status_code == 200


async def test_without_a_leader_nobody_signs_in(orphan: httpx.AsyncClient) -> None:
    assert_problem(await HttpAgent(orphan).register(), "no-leader", 503)


async def test_what_cannot_be_registered_is_told(agent: HttpAgent) -> None:
    for fields, field in (
        ({"capabilities": []}, "body.capabilities"),
        ({"capabilities": [{"name": "no good"}]}, "body.capabilities.0.name"),
        ({"agent_id": "-"}, "body.agent_id"),
        ({"endpoint": "ftp://box"}, "body.endpoint"),
        ({"heartbeat_interval": 2, "lease": 5}, "body"),
        ({"slots": 0}, "body.slots"),
        ({"accepts": "colour == red"}, "body.accepts"),
    ):
        assert_problem(await agent.register(**fields), "invalid", 422, field)


# --- tokens


async def test_an_agents_token_speaks_for_that_agent_and_reports_what_it_holds(
    redis_url: str, led: str, redis: Redis
) -> None:
    tokens = Tokens(redis)
    made = {scope: await tokens.create([scope]) for scope in ("agent:one", "agent:two", "submit", "operate")}
    headers = {scope: bearer(token) for scope, (token, _) in made.items()}
    try:
        async with serving(redis_url, led, require_token=True) as api:
            one = HttpAgent(api, "one", headers["agent:one"])
            two = HttpAgent(api, "two", headers["agent:two"])
            await one.register("of.one")
            await two.register("of.two")
            body = {"capability": "of.one"}
            assert (await api.post("/tasks/dispatch", json=body, headers=headers["submit"])).status_code == 202
            (given,) = await one.poll()
            forging = HttpAgent(api, "one", headers["agent:two"])
            forging.session = one.session
            for answer in (
                await forging.register(),
                await forging.ask(),
                await forging.beat(),
                await forging.leave(force=True),
                *[await forging.say(what, given) for what in ("start", "progress", "result")],
            ):
                assert_problem(answer, "forbidden", 403)
            assert (await one.say("result", given, output=1)).status_code == 202
            assert_problem(await api.delete("/agents/two", headers=headers["agent:one"]), "forbidden", 403)
            for who in (headers["operate"], headers["agent:one"]):
                assert (await api.delete("/agents/one?force=true", headers=who)).status_code in (202, 404)
    finally:
        await asyncio.gather(*(tokens.revoke(record.id) for _, record in made.values()))
