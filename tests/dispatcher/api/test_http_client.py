"""`bus.HttpClient` does over HTTP what `bus.Client` does on Redis, and raises what that raises."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest
from pydantic import BaseModel
from redis.asyncio import Redis

from agent_runtime import Agent, TaskContext, capability
from bus import (
    ApiProblemError,
    ApiUnavailableError,
    Client,
    HttpClient,
    HttpEvent,
    NoLeaderError,
    NotDeadError,
    NotRunningError,
    PayloadTooLargeError,
    QueueFullError,
    RequestState,
    ScheduleError,
    SubmissionError,
    TaskCancelledError,
    TaskCreate,
    TaskFailedError,
    TaskPriority,
    TaskStatus,
    TaskTimeoutError,
    UnknownAgentError,
    UnknownScheduleError,
    UnknownTaskError,
)
from bus.names import TOKENS_KEY
from callboard.ports import free_port
from dispatcher.api.tokens import Tokens
from tests.dispatcher.api.conftest import serving
from tests.fundamentals.conftest import running_agent
from tests.support.bus import running_dispatcher
from tests.support.waiting import eventually


class Text(BaseModel):
    text: str


class Words(BaseModel):
    words: int


class Crew(Agent):
    slots = 16

    @capability("text.count")
    async def count(self, task: Text) -> Words:
        return Words(words=len(task.text.split()))

    @capability("boom")
    async def boom(self, task: str) -> None:
        raise RuntimeError(task)

    @capability("hang")
    async def hang(self, task: Any, ctx: TaskContext) -> None:
        await asyncio.Event().wait()


def address(api: httpx.AsyncClient) -> str:
    return str(api.base_url).removesuffix("/api/v1/")


@pytest.fixture
async def http(redis_url: str, led: str) -> AsyncIterator[HttpClient]:
    """Provide an HTTP client of a pool that is led."""
    async with serving(redis_url, led) as api, HttpClient(address(api), pool=led) as client:
        yield client


@pytest.fixture
async def crew(bus: Client, led: str) -> AsyncIterator[str]:
    """Provide an agent; its id."""
    assert bus.pool == led
    async with running_agent(bus, Crew()) as worker:
        yield worker.agent_id


def test_it_has_all_that_the_client_has(pool: str) -> None:
    def public(kind: object) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    assert public(Client) - {"dead", "schedules"} <= public(HttpClient)
    one, other = Client("redis://nowhere", pool=pool), HttpClient("http://nowhere", pool=pool)
    assert public(one.dead) <= public(other.dead)
    assert public(one.schedules) - {"put_spec"} <= public(other.schedules)


async def test_a_task_is_submitted_and_its_result_comes_back_as_the_method_returns_it(
    http: HttpClient, crew: str
) -> None:
    handle = await http.submit(Crew.count, Text(text="to be"))
    assert await handle.result(timeout=30) == Words(words=2)
    assert await (await http.submit("text.count", {"text": "a"})).result(timeout=30) == {"words": 1}
    assert (await handle.get()).agent_id == crew


@pytest.mark.usefixtures("crew")
async def test_many_are_submitted_and_told_as_they_end(http: HttpClient) -> None:
    tasks = (TaskCreate(capability="text.count", payload={"text": "a " * n}) for n in range(1100))
    handles = await http.submit_many(tasks)
    assert len({handle.id for handle in handles}) == 1100
    found = {handle.id: await handle.result() async for handle in http.as_completed(handles)}
    assert [found[handle.id]["words"] for handle in handles] == list(range(1100))


@pytest.mark.usefixtures("crew")
async def test_a_task_with_a_key_is_submitted_once(http: HttpClient) -> None:
    first = await http.submit("text.count", {"text": "a"}, key="order-17")
    (again,) = await http.submit_many([TaskCreate(capability="text.count", payload={"text": "b"}, key="order-17")])
    assert first.id == again.id
    assert await again.result(timeout=30) == {"words": 1}


@pytest.mark.usefixtures("crew")
async def test_what_ends_badly_raises_as_it_does_on_redis(http: HttpClient) -> None:
    with pytest.raises(TaskFailedError, match="RuntimeError: no") as failed:
        await (await http.submit("boom", "no", max_attempts=1)).result(timeout=30)
    assert failed.value.reason == "error"
    waiting = await http.submit("nobody.can", None)
    with pytest.raises(TaskTimeoutError, match="goes on"):
        await waiting.result(timeout=0.1)
    await waiting.cancel("no need")
    with pytest.raises(TaskCancelledError, match="no need") as cancelled:
        await waiting.result(timeout=30)
    assert cancelled.value.by == "api"
    with pytest.raises(UnknownTaskError):
        await http.handle(f"{http.pool}.nothing").result(timeout=30)


@pytest.mark.usefixtures("crew")
async def test_tasks_are_looked_at_and_steered(http: HttpClient) -> None:
    tagged = await http.submit("nobody.can", None, tags=["x"])
    await tagged.get()
    assert [task.id for task in await http.list_tasks(TaskStatus.PENDING, where="tag=x enqueued_after=1h")] == [
        tagged.id
    ]
    assert await http.list_tasks(where="tag=y") == []
    assert (await http.explain(tagged.id)).eligible == 0
    assert (await http.plan(TaskCreate(capability="text.count"))).eligible == 1
    assert (await http.queue_status()).waiting == 1
    assert await http.children(tagged.id) == []
    await http.reprioritise([tagged.id], TaskPriority.URGENT)
    assert await http.reprioritise_matching("tag=x", TaskPriority.LOW) == 1
    runs = await http.submit("hang", None, max_attempts=1)
    await eventually(lambda: _is(http, runs.id, TaskStatus.RUNNING))
    report = await http.cancel_and_wait([tagged.id, f"{http.pool}.nothing"], "no need", timeout=30)
    assert (report.cancelled, report.unknown) == ((tagged.id,), (f"{http.pool}.nothing",))
    assert (await http.timeout(runs.id, "it hangs")).status is TaskStatus.FAILED
    with pytest.raises(NotRunningError, match="FAILED"):
        await http.timeout(runs.id)
    last = await http.submit("nobody.can", None, tags=["z"])
    await last.get()
    assert await http.cancel_matching("tag=z", "all of them") == 1
    with pytest.raises(ValueError, match="name of the token"):
        await http.cancel([tagged.id], by="me")


async def _is(http: HttpClient, task_id: str, status: TaskStatus) -> bool:
    return (await http.get(task_id, patience=5)).status is status


@pytest.mark.usefixtures("crew")
async def test_dead_letters_are_requeued_and_purged(http: HttpClient) -> None:
    handles = [await http.submit("boom", n, max_attempts=1, tags=[f"n{n}"]) for n in ("a", "b")]
    for handle in handles:
        with pytest.raises(TaskFailedError):
            await handle.result(timeout=30)
    assert {task.id for task in await http.dead.list("error=RuntimeError")} == {handle.id for handle in handles}
    assert (await http.dead.get(handles[0].id)).status is TaskStatus.FAILED
    assert (await http.dead.count(), await http.dead.count("tag=na")) == (2, 1)
    assert (await http.dead.requeue(where="tag=na", reason="again")).done == (handles[0].id,)
    with pytest.raises(TaskFailedError):
        await http.handle(handles[0].id).result(timeout=30)
    assert (await http.dead.purge([handles[1].id, f"{http.pool}.nothing"])).unknown == (f"{http.pool}.nothing",)
    done = await http.submit("text.count", {"text": "a"})
    await done.result(timeout=30)
    with pytest.raises(NotDeadError, match="COMPLETED"):
        await http.dead.get(done.id)
    with pytest.raises(ValueError, match="by their ids or by `where`"):
        await http.dead.purge()


@pytest.mark.usefixtures("crew")
async def test_schedules_are_made_and_steered(http: HttpClient) -> None:
    made = await http.schedules.put("s", "text.count>=1", {"text": "a"}, every=3600, tags=["t"])
    assert (made.spec.every, made.spec.task.version, made.spec.task.tags) == (3600, ">=1", ("t",))
    assert [one.id for one in await http.schedules.list()] == ["s"]
    assert (await http.schedules.pause("s", "audit")).progress.paused
    assert not (await http.schedules.resume("s")).progress.paused
    handle = await http.schedules.trigger("s")
    assert await handle.result(timeout=30) == {"words": 1}
    await http.schedules.delete("s")
    with pytest.raises(UnknownScheduleError):
        await http.schedules.get("s")
    with pytest.raises(ScheduleError, match="cron"):
        await http.schedules.put("s", "a", cron="at noon")


async def test_agents_are_looked_at_and_steered(http: HttpClient, crew: str) -> None:
    assert [info.agent_id for info in await http.agents()] == [crew]
    request = await http.pause_agent(crew, "disk swap", for_=600)
    assert (await http.wait_agent(crew, request, timeout=10)).state is RequestState.DONE
    assert (await http.agent(crew)).pause is not None
    assert (await http.wait_agent(crew, await http.resume_agent(crew))).state is RequestState.DONE
    request = await http.update_agent(crew, slots=3, attributes={"region": "us"})
    assert (await http.wait_agent(crew, request)).state is RequestState.DONE
    assert (await http.agent(crew)).slots == 3
    assert (await http.wait_agent(crew, await http.drain_agent(crew, deadline=5))).state is RequestState.DONE
    assert (await http.wait_agent(crew, await http.restart_agent(crew))).state is RequestState.REFUSED
    with pytest.raises(UnknownAgentError):
        await http.agent("nobody")


async def _first(http: HttpClient) -> HttpEvent:
    async for event in http.events(kind="task", status=[TaskStatus.COMPLETED]):
        return event
    raise AssertionError


@pytest.mark.usefixtures("crew")
async def test_events_are_followed_and_gone_on_behind_the_last(http: HttpClient) -> None:
    async with asyncio.timeout(20):
        coming = asyncio.create_task(_first(http))
        while not coming.done():
            await (await http.submit("text.count", {"text": "a"})).result(timeout=30)
        first = await coming
        second = await http.submit("text.count", {"text": "b"})
        await second.result(timeout=30)
        async for event in http.events(task=second.id, after=first.id):
            assert (event.data["status"], event.data["task_id"]) in {
                (status, second.id) for status in ("PENDING", "ASSIGNED", "RUNNING", "COMPLETED")
            }
            if event.data["status"] == "COMPLETED":
                break


async def test_what_cannot_be_submitted_is_said_as_on_redis(redis_url: str, redis: Redis, pool: str) -> None:
    async with (
        running_dispatcher(redis_url, pool, max_pending=("2",)),
        serving(redis_url, pool) as api,
        HttpClient(address(api), pool=pool) as http,
    ):
        await eventually(lambda: _bounded(redis, pool))
        with pytest.raises(SubmissionError, match="max_attempts"):
            await http.submit("a", max_attempts=0)
        with pytest.raises(PayloadTooLargeError):
            await http.submit("a", "x" * 1_100_000)
        with pytest.raises(SubmissionError):
            await http.submit("a", float("nan"))
        with pytest.raises(SubmissionError, match="not a TaskCreate"):
            await http.submit_many(["a"])  # type: ignore[list-item] # what is tested
        with pytest.raises(QueueFullError) as full:
            await http.submit_many([TaskCreate(capability="nobody.can")] * 3)
        assert [handle is None for handle in full.value.handles] == [False, False, True]
        with pytest.raises(QueueFullError, match="no more than 2"):
            await http.submit("nobody.can", wait_for_room=0.1)


async def _bounded(redis: Redis, pool: str) -> bool:
    return bool(await redis.exists(f"callboard:{{{pool}}}:notes:bounds"))


async def test_without_a_leader_and_of_another_pool_it_is_said_so(redis_url: str, pool: str) -> None:
    async with serving(redis_url, pool) as api, HttpClient(address(api), pool=pool) as http:
        with pytest.raises(NoLeaderError):
            await http.plan(TaskCreate(capability="a"))
        with pytest.raises(ApiProblemError, match="unknown-pool") as problem:
            await http.submit("a", pool="nowhere")
        assert (problem.value.status, bool(problem.value.request_id)) == (404, True)


async def test_nothing_that_answers_is_said_with_where_it_was_looked_for() -> None:
    nowhere = f"http://127.0.0.1:{free_port('127.0.0.1')}"
    with pytest.raises(ApiUnavailableError, match="callboard api"):
        async with HttpClient(nowhere, retry_for=0.1):
            pass


async def test_a_request_that_is_too_much_now_is_sent_again_when_it_may(redis_url: str, redis: Redis, led: str) -> None:
    token, _ = await Tokens(redis).create(["admin"])
    async with serving(redis_url, led, require_token=True, rate=1, burst=1) as api:
        async with HttpClient(address(api), pool=led, token=token, retry_for=20) as http:
            ids = [(await http.submit("nobody.can", n)).id for n in range(2)]
            assert len(set(ids)) == 2
        with pytest.raises(ApiProblemError, match="unauthenticated"):
            async with HttpClient(address(api), pool=led, token="cb_no") as http:  # noqa: S106 - it is none
                await http.agents()
    await redis.delete(TOKENS_KEY)


@asynccontextmanager
async def losing_answers(port: int, number: int) -> AsyncIterator[str]:
    """Provide the address of a proxy that hands requests on and loses the first so many answers to submissions."""
    lost = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", port)
        submits = False

        async def hand_on() -> None:
            nonlocal submits
            while request := await reader.read(65_536):
                submits = submits or request.startswith(b"POST /api/v1/tasks/dispatch")
                up_writer.write(request)

        async def answer() -> None:
            nonlocal lost
            while said := await up_reader.read(65_536):
                if submits and lost < number:
                    lost += 1
                    return
                writer.write(said)

        ways = [asyncio.create_task(hand_on()), asyncio.create_task(answer())]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        up_writer.close()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1") as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    assert lost == number


async def test_a_submission_whose_answer_was_lost_is_stored_once(redis_url: str, led: str) -> None:
    async with serving(redis_url, led) as api:
        port = api.base_url.port
        assert port is not None
        async with losing_answers(port, 2) as url, HttpClient(url, pool=led) as http:
            one = await http.submit("nobody.can", 1)
            await one.get()
        async with losing_answers(port, 1) as url, HttpClient(url, pool=led) as http:
            many = await http.submit_many([TaskCreate(capability="nobody.can", payload=n) for n in range(5)])
            await many[-1].get()
            assert (await http.queue_status()).waiting == 6


async def test_whoever_waits_is_told_though_the_api_was_away(redis_url: str, led: str, bus: Client) -> None:
    port = free_port("127.0.0.1")
    async with AsyncExitStack() as stack:
        async with serving(redis_url, led, port=port) as api:
            http = await stack.enter_async_context(HttpClient(address(api), pool=led))
            handle = await http.submit("text.count", {"text": "a b"})
            waiting = asyncio.create_task(handle.result())
            await eventually(lambda: _is(http, handle.id, TaskStatus.PENDING))
        async with running_agent(bus, Crew()):
            await bus.handle(handle.id).result(timeout=30)
        async with serving(redis_url, led, port=port):
            assert await waiting == {"words": 2}


async def test_a_client_that_is_closed_tells_whoever_waits(redis_url: str, led: str) -> None:
    async with serving(redis_url, led) as api:
        async with HttpClient(address(api), pool=led) as http:
            waiting = asyncio.create_task((await http.submit("nobody.can")).result())
            await asyncio.wait([waiting], timeout=0.05)
        with pytest.raises(Exception, match="closed"):
            await waiting


def test_without_httpx_it_says_how_to_install_it() -> None:
    code = "import sys; sys.modules['httpx'] = None; import bus; bus.HttpClient"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.stderr.splitlines()[-1] == "ImportError: bus.HttpClient needs httpx: pip install 'callboard[http]'"
