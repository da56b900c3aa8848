"""The script that stores submissions, on a real server."""

from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_core import from_json
from redis.asyncio import Redis

from bus import SubmissionError, TaskCreate, TaskPriority
from bus.connection import connect
from bus.ids import ClientId, check_pool, keyed_task_id
from bus.messages import MAX_BODY_BYTES, SubmitTask
from bus.names import PoolNames
from bus.submission import SUBMIT, TASKS_PER_CALL, Sent, Submission, in_calls, send, submission_of

CLIENT = ClientId("c1")


def made(pool: str, **fields: object) -> Submission:
    return submission_of(TaskCreate.model_validate({"capability": "a.b", **fields}), pool, CLIENT)[1]


async def stored(redis: Redis, names: PoolNames, level: TaskPriority) -> list[SubmitTask]:
    entries: Any = await redis.xrange(names.submissions(level))
    return [SubmitTask.model_validate_json(fields[b"__data__"]) for _, fields in entries]


async def test_each_level_has_its_stream_and_what_was_not_given_is_not_sent(redis: Redis, redis_url: str) -> None:
    pool = check_pool("submission1")
    names = PoolNames(pool)
    await redis.delete(*[names.submissions(level) for level in TaskPriority])
    part = [made(pool, priority=level, payload={"x": level}) for level in TaskPriority]
    assert await send(redis, redis_url, names, part) == Sent(set(), {})
    for level, submission in zip(TaskPriority, part, strict=True):
        [task] = await stored(redis, names, level)
        assert (task.id, task.priority, task.payload) == (submission.task_id, level, {"x": level})
    assert set(from_json(part[0].body)) == {"v", "id", "reply_to", "capability", "payload", "priority"}


async def test_a_keyed_task_is_stored_once_while_it_waits_and_once_it_has_a_record(
    redis: Redis, redis_url: str, pool: str
) -> None:
    names = PoolNames(check_pool(pool))
    task_id = keyed_task_id(names.pool, "k")
    first, second = made(pool, key="k"), made(pool, key="k")
    assert first.task_id == second.task_id == task_id
    assert await send(redis, redis_url, names, [first, made(pool), second]) == Sent({2}, {})
    assert await send(redis, redis_url, names, [second]) == Sent({0}, {})
    assert len(await stored(redis, names, TaskPriority.MEDIUM)) == 2
    await redis.delete(names.submitted(task_id))
    await redis.hset(names.task(task_id), "state", "COMPLETED/1//")
    assert await send(redis, redis_url, names, [second]) == Sent({0}, {})
    assert len(await stored(redis, names, TaskPriority.MEDIUM)) == 2


async def test_an_emptied_script_cache_costs_a_round_trip_and_nothing_else(
    redis: Redis, redis_url: str, pool: str
) -> None:
    names = PoolNames(check_pool(pool))
    await redis.script_flush()
    await send(redis, redis_url, names, [made(pool)])
    await redis.script_flush()
    await send(redis, redis_url, names, [made(pool)])
    assert len(await stored(redis, names, TaskPriority.MEDIUM)) == 2


async def test_a_cluster_could_run_it_for_every_key_is_declared(redis: Redis, pool: str) -> None:
    names = PoolNames(check_pool(pool))
    with pytest.raises(Exception, match=r"Lua|argument"):
        await redis.execute_command("EVAL", SUBMIT.source, 0, 1000, 1000, 1, "c", 1, 0, 0, 1, "i", "{}")  # type: ignore[no-untyped-call]
    assert await redis.keys(f"{names.root}*") == []


def test_calls_are_bounded_by_number_and_by_size(pool: str) -> None:
    small = [made(pool)] * (2 * TASKS_PER_CALL + 1)
    assert [len(part) for part in in_calls(small)] == [TASKS_PER_CALL, TASKS_PER_CALL, 1]
    large = [made(pool, payload="x" * (MAX_BODY_BYTES - 1000))] * 5
    assert [len(part) for part in in_calls(large)] == [4, 1]
    assert list(in_calls([])) == []


def test_models_and_bytes_go_out_as_json(pool: str) -> None:
    class Text(BaseModel):
        text: str

    body = from_json(
        made(pool, payload={"model": Text(text="ä"), "raw": b"\x00\xff", "word": "NaN", "nothing": None}).body
    )
    assert body["payload"] == {"model": {"text": "ä"}, "raw": "AP8=", "word": "NaN", "nothing": None}


class Number(BaseModel):
    n: float


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_json_has_not_is_refused_and_does_not_become_null(pool: str, number: float) -> None:
    for payload in (number, {"a": [number]}, Number(n=number), {"deep": [Number(n=number)]}):
        with pytest.raises(SubmissionError, match="NaN or infinite: send null"):
            made(pool, payload=payload)


async def test_a_client_on_a_closed_server_gives_up_with_the_remedy(monkeypatch: pytest.MonkeyPatch, pool: str) -> None:
    monkeypatch.setattr("bus.submission.RETRY_FOR_S", 0.2)
    nowhere = connect("redis://127.0.0.1:1/0", name="test")
    with pytest.raises(Exception, match="callboard up"):
        await send(nowhere, "redis://127.0.0.1:1/0", PoolNames(check_pool(pool)), [made(pool)])
