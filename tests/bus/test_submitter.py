"""Many coroutines submit one by one: together when they come at once, each as if alone."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from redis.asyncio import Redis

from bus import BusUnavailableError, Client, TaskCreate, TaskPriority
from bus.ids import ClientId, TaskId, check_pool
from bus.messages import SubmitTask
from bus.names import PoolNames
from bus.submission import TASKS_PER_CALL, Sent, Submission, submission_of
from bus.submitter import Submitter
from tests.support.waiting import eventually

NAMES = PoolNames(check_pool("p"))


def made(number: int = 0) -> Submission:
    return submission_of(TaskCreate(capability="a.b", payload=number), "p", ClientId("c"))[1]


class Sending:
    """Stands for `bus.submission.send`: each call waits until it is let through."""

    def __init__(self) -> None:
        self.calls: list[list[Submission]] = []
        self.known: set[TaskId] = set()
        self.errors: list[Exception] = []
        self.gate = asyncio.Semaphore(0)

    async def __call__(self, redis: object, url: str, names: PoolNames, part: Sequence[Submission]) -> Sent:
        self.calls.append(list(part))
        await self.gate.acquire()
        if self.errors:
            raise self.errors.pop(0)
        return Sent({place for place, submission in enumerate(part) if submission.task_id in self.known}, {})

    def through(self, calls: int = 1000) -> None:
        for _ in range(calls):
            self.gate.release()


@pytest.fixture
async def sending(monkeypatch: pytest.MonkeyPatch) -> Sending:
    stub = Sending()
    monkeypatch.setattr("bus.submitter.send", stub)
    return stub


@pytest.fixture
def submitter() -> Submitter:
    redis: Any = None
    return Submitter(redis, "redis://x")


def start(submitter: Submitter, given: Sequence[Submission]) -> list[asyncio.Task[bool]]:
    return [asyncio.create_task(submitter.submit(NAMES, one)) for one in given]


async def test_the_first_goes_at_once_and_those_that_come_meanwhile_go_together(
    submitter: Submitter, sending: Sending
) -> None:
    given = [made(n) for n in range(2 + TASKS_PER_CALL)]
    tasks = start(submitter, given)
    await eventually(lambda: sending.calls)
    assert sending.calls == [given[:1]]
    sending.known = {given[5].task_id, given[-1].task_id}
    sending.through()
    assert [n for n, known in enumerate(await asyncio.gather(*tasks)) if known] == [5, len(given) - 1]
    assert sending.calls == [given[:1], given[1:-1], given[-1:]]
    assert not await submitter.submit(NAMES, made())


async def test_a_cancelled_caller_gives_up_nobody_elses_submission(submitter: Submitter, sending: Sending) -> None:
    given = [made(n) for n in range(5)]
    tasks = start(submitter, given)
    await eventually(lambda: sending.calls)
    tasks[0].cancel()  # under way
    tasks[2].cancel()  # collected
    await eventually(lambda: len(sending.calls) == 2)
    assert sending.calls[1] == [given[1], given[3], given[4]]
    tasks[3].cancel()  # under way with others
    sending.through()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(one, asyncio.CancelledError) for one in done] == [True, False, True, True, False]
    assert not await submitter.submit(NAMES, made())


async def test_an_error_belongs_to_those_of_its_call(submitter: Submitter, sending: Sending) -> None:
    given = [made(n) for n in range(3 + TASKS_PER_CALL)]
    tasks = start(submitter, given)
    await eventually(lambda: sending.calls)
    sending.errors = [ValueError("first"), ValueError("second")]
    sending.through()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert [str(one) for one in done] == ["first", *["second"] * TASKS_PER_CALL, "False", "False"]


@pytest.mark.parametrize("call", [0, 1])
async def test_what_was_collected_while_the_server_was_away_is_told_so_at_once(
    call: int, submitter: Submitter, sending: Sending
) -> None:
    tasks = start(submitter, [made(n) for n in range(2 + TASKS_PER_CALL)])
    await eventually(lambda: sending.calls)
    if call:
        sending.through(1)
        await eventually(lambda: len(sending.calls) == 2)
    sending.errors = [BusUnavailableError("redis://x", "gone")]
    sending.through(1)
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert len(sending.calls) == 1 + call
    assert all(isinstance(one, BusUnavailableError) for one in done[call:])
    sending.through(1)
    assert not await submitter.submit(NAMES, made())


async def test_closing_cancels_those_that_wait(submitter: Submitter, sending: Sending) -> None:
    tasks = start(submitter, [made(n) for n in range(3 + TASKS_PER_CALL)])
    await eventually(lambda: sending.calls)
    sending.through(1)
    await eventually(lambda: len(sending.calls) == 2)
    await submitter.close()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(one, asyncio.CancelledError) for one in done] == [False, *[True] * (2 + TASKS_PER_CALL)]


async def test_on_a_server_each_is_stored_once_in_few_calls(own: Redis, own_url: str) -> None:
    async with Client(own_url) as client:
        handles = await asyncio.gather(
            *(client.submit("a.b", n) for n in range(500)), *(client.submit("a.b", key="same") for _ in range(5))
        )
        entries: Any = await own.xrange(PoolNames(check_pool("default")).submissions(TaskPriority.MEDIUM))
        tasks = [SubmitTask.model_validate_json(fields[b"__data__"]) for _, fields in entries]
        assert [task.payload for task in tasks[:500]] == list(range(500))
        assert len(tasks) == 501
        assert len({handle.id for handle in handles}) == 501
        stats: Any = await own.info("commandstats")
        assert stats["cmdstat_evalsha"]["calls"] <= 5
