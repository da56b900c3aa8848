"""Following what happens: resuming, filters, gaps, slow readers, and the end of the process."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from bus.messages import EventBatch, Transition
from bus.names import DATA_FIELD, PoolNames
from bus.states import TaskStatus
from dispatcher.api import feed as feed_module
from dispatcher.api import service as service_module
from dispatcher.api.feed import EventId
from dispatcher.api.following import follow
from dispatcher.api.service import ApiService
from dispatcher.api.settings import ApiSettings
from dispatcher.api.site import Site
from tests.dispatcher.api.conftest import Alternating, assert_problem, serving, submitted
from tests.support.bus import wire_agent
from tests.support.waiting import eventually

Events = AsyncIterator[tuple[str, str | None, Any]]


async def _parsed(answer: httpx.Response) -> Events:
    event: dict[str, str] = {}
    async for line in answer.aiter_lines():
        if line:
            name, _, value = line.partition(": ")
            event[name] = value
        elif event:
            if "data" in event:
                yield event["event"], event.get("id"), json.loads(event["data"])
            elif "" in event:
                yield "comment", None, event[""]
            event = {}


@asynccontextmanager
async def following(api: Any, path: str = "/events", last: str | None = None, **params: Any) -> AsyncIterator[Events]:
    headers = {} if last is None else {"Last-Event-ID": last}
    async with api.stream("GET", path, params=params, headers=headers) as answer:
        assert answer.status_code == 200, (await answer.aread(), answer.headers)
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = _parsed(answer)
        yield lines


async def publish(redis: Redis, pool: str, *ids: str, status: TaskStatus = TaskStatus.PENDING) -> str:
    """Write one entry of events as a leader does; return its id."""
    batch = EventBatch(at=1, epoch=1, tasks=tuple(Transition(task_id=one, status=status) for one in ids))
    names = PoolNames(pool)  # type: ignore[arg-type] # a pool's name
    entry: Any = await redis.xadd(names.events, {DATA_FIELD: batch.model_dump_json()})
    return str(entry.decode())


async def test_every_transition_is_told_in_its_order(api: Alternating, redis: Redis, pool: str) -> None:
    async with wire_agent(redis, pool, "text.count") as agent, following(api, kind="task") as events:
        task_id = await submitted(api)
        await agent.complete(await agent.next(), 1)
        told = []
        async for kind, event_id, data in events:
            assert (kind, data["task_id"]) == ("task", task_id)
            assert event_id
            told.append(data["status"])
            if data["status"] == "COMPLETED":
                break
        assert told[-2:] == ["ASSIGNED", "COMPLETED"]


async def test_events_are_filtered(orphan: httpx.AsyncClient, redis: Redis, pool: str) -> None:
    await publish(redis, pool, f"{pool}.a", f"{pool}.b")
    await publish(redis, pool, f"{pool}.b", status=TaskStatus.RUNNING)
    async with following(orphan, last="0-0/0", task=f"{pool}.b", status="RUNNING") as events:
        kinds = [(await anext(events))[0], (await anext(events))[2]["status"]]
        assert kinds == ["gap", "RUNNING"]


async def test_events_are_filtered_by_the_capability_of_their_tasks(api: Alternating) -> None:
    async with following(api, capability=["text.count", "other"]) as events:
        await submitted(api, capability="nobody.can")
        wanted = await submitted(api)
        _, _, data = await anext(events)
        assert (data["task_id"], data["capability"]) == (wanted, "text.count")


async def test_who_comes_back_goes_on_behind_the_last_event(orphan: httpx.AsyncClient, redis: Redis, pool: str) -> None:
    await publish(redis, pool, *(f"{pool}.{n}" for n in range(3)))
    entry = await publish(redis, pool, *(f"{pool}.{n}" for n in range(3, 6)))
    async with following(orphan, last=f"{entry}/0") as events:
        assert [(await anext(events))[1] for _ in range(2)] == [f"{entry}/1", f"{entry}/2"]
        later = await publish(redis, pool, f"{pool}.6")
        assert (await anext(events))[1] == f"{later}/0"


async def test_resuming_reads_past_what_one_process_remembers(redis: Redis, redis_url: str, pool: str) -> None:
    first = await publish(redis, pool, f"{pool}.0")
    for n in range(1, 350):
        await publish(redis, pool, f"{pool}.{n}")
    async with serving(redis_url, pool) as api, following(api, last=f"{first}/0") as events:
        seen = [(await anext(events))[2]["task_id"] for _ in range(349)]
        await publish(redis, pool, f"{pool}.350")
        seen.append((await anext(events))[2]["task_id"])
    assert seen == [f"{pool}.{n}" for n in range(1, 351)]


async def test_a_gap_is_told(orphan: httpx.AsyncClient, redis: Redis, pool: str) -> None:
    entry = await publish(redis, pool, f"{pool}.a")
    kept = await publish(redis, pool, f"{pool}.b")
    await redis.xtrim(PoolNames(pool).events, minid=kept, approximate=False)  # type: ignore[arg-type] # a pool's name
    async with following(orphan, last=f"{entry}/0") as events:
        assert (await anext(events))[0] == "gap"
        assert (await anext(events))[1] == f"{kept}/0"
    async with following(orphan, last="9999999999999-0/0") as events:
        assert (await anext(events))[0] == "gap"


async def test_a_silent_stream_says_that_it_lives(redis_url: str, pool: str) -> None:
    async with (
        serving(redis_url, pool, heartbeat=timedelta(milliseconds=50)) as api,
        following(api) as events,
    ):
        assert (await anext(events))[0] == "comment"


async def test_a_slow_reader_is_dropped_with_a_word(
    redis: Redis, redis_url: str, pool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "RING_EVENTS", 10)
    site = Site(ApiSettings(redis_url=redis_url, pool=pool))
    try:
        names = site.link.names(None)
        pieces = follow(site, names, None, lambda _: True)
        await anext(pieces)
        await publish(redis, pool, f"{pool}.a")
        piece, _ = await anext(pieces)
        assert b"event: task" in piece
        for n in range(30):
            await publish(redis, pool, f"{pool}.{n}")
        behind = site.feed(names)
        await eventually(
            lambda: behind.floor > EventId(0, 0, 0) and behind.tip.ms > 0 and len(behind.after(behind.floor))
        )
        await eventually(lambda: b'.29"' in behind.after(behind.floor)[-1].data)
        piece, _ = await anext(pieces)
        assert piece.startswith(b"event: dropped")
        with pytest.raises(StopAsyncIteration):
            await anext(pieces)
    finally:
        await site.close()


async def test_a_task_is_followed_to_its_end(api: Alternating, redis: Redis, pool: str) -> None:
    async with wire_agent(redis, pool, "text.count") as agent:
        task_id = await submitted(api)
        given = await agent.next()
        async with following(api, f"/tasks/{task_id}/events") as events:
            kind, _, record = await anext(events)
            assert (kind, record["id"]) == ("state", task_id)
            await agent.complete(given, 1)
            assert [data["status"] async for _, _, data in events][-1] == "COMPLETED"
        async with following(api, f"/tasks/{task_id}/events") as events:
            assert [(kind, data["status"]) async for kind, _, data in events] == [("state", "COMPLETED")]


async def test_what_is_no_event_id_is_refused(orphan: httpx.AsyncClient) -> None:
    answer = await orphan.get("/events", headers={"Last-Event-ID": "yesterday"})
    assert_problem(answer, "invalid", 422, "header.Last-Event-ID")


async def test_no_more_streams_are_open_than_may_be(redis_url: str, pool: str) -> None:
    async with serving(redis_url, pool, max_open=1) as api:
        async with following(api):
            assert_problem(await api.get("/events"), "busy", 503)
        await eventually(lambda: _is_open(api))


async def _is_open(api: httpx.AsyncClient) -> bool:
    async with api.stream("GET", "/events") as answer:
        return answer.status_code == 200


class CountsOpen:
    """An observer of how much is open."""

    open = 0

    def requested(self, route: str, method: str, status: int, seconds: float) -> None:
        pass

    def opened(self, difference: int) -> None:
        self.open += difference

    def dropped(self) -> None:
        pass


async def test_half_a_body_at_the_end_is_told_that_the_process_stops(
    redis_url: str, pool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "GRACE_S", 0)
    service = ApiService(ApiSettings(redis_url=redis_url, pool=pool, port=0))
    stop, ready = asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(service.run(stop, ready))
    await ready.wait()
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(b"POST /api/v1/tasks/dispatch HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
    await writer.drain()
    async with httpx.AsyncClient() as client:
        await client.get(f"{service.url}/livez")  # when that is answered the other has been read, too
    stop.set()
    answer = await reader.read()
    assert b" 503 " in answer.splitlines()[0]
    assert b"urn:callboard:problem:stopping" in answer
    writer.close()
    await running


async def test_fifty_open_streams_and_fifty_waits_do_not_delay_the_end(redis_url: str, led: str) -> None:
    counter = CountsOpen()
    service = ApiService(ApiSettings(redis_url=redis_url, pool=led, port=0), observer=counter)
    stop, ready = asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(service.run(stop, ready))
    await ready.wait()
    limits = httpx.Limits(max_connections=200)
    async with httpx.AsyncClient(base_url=f"{service.url}/api/v1", timeout=20, limits=limits) as client:
        task_id = await submitted(client)

        async def read() -> str:
            last = ""
            async with following(client) as events:
                async for kind, _, _ in events:
                    last = kind
            return last

        reading = [asyncio.create_task(read()) for _ in range(50)]
        waiting = [asyncio.create_task(client.get(f"/tasks/{task_id}/result?wait=15")) for _ in range(50)]
        await eventually(lambda: counter.open == 100)
        began = asyncio.get_running_loop().time()
        stop.set()
        await running
        assert asyncio.get_running_loop().time() - began < 2
        assert {await one for one in reading} == {"bye"}
        assert {(await one).status_code for one in waiting} == {202}


async def test_events_of_a_server_that_is_away_are_not_followed(pool: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "BEGIN_S", 0.1)
    async with serving("redis://127.0.0.1:1/0", pool) as api:
        assert_problem(await api.get("/events"), "server-unavailable", 503)
