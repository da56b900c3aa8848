"""A task is what pydantic makes of its fields, however many were made alike before it."""

import copy
import pickle
from typing import Any

import pytest
from pydantic import ValidationError

from bus import TaskCreate, TaskPriority
from bus.alike import _validated, make_alike
from bus.ids import ClientId, check_pool
from bus.retries import RetryPolicy
from bus.submission import content_of, submission_of

_GOOD: tuple[dict[str, Any], ...] = (
    {"capability": "a.b"},
    {"capability": "a.b", "payload": None},
    {"capability": "a.b", "payload": {"n": [1]}},
    {"capability": "a.b", "priority": "HIGH"},
    {"capability": "a.b", "priority": TaskPriority.HIGH},
    {"capability": "a.b", "max_attempts": 1},
    {"capability": "a.b", "max_attempts": True},
    {"capability": "a.b", "max_attempts": 1.0},
    {"capability": "a.b", "max_attempts": "1"},
    {"capability": "a.b", "run_timeout": 1, "delay": 0.0, "pool": "p", "version": ">=2"},
    {"capability": "a.b", "run_timeout": None, "fail_fast": True, "slots": 2, "estimated_duration": 0.5},
    {"capability": "translate>=2[lang contains de]", "payload": 1},
    {"capability": "translate>=2[lang contains de]", "requires": ["gpu >= 1"]},
    {"capability": "a.b", "requires": ("n == 1",), "tags": ("x",)},
    {"capability": "a.b", "metadata": {"a": 1}, "resources": {"gpu": 1}, "limits": [{"key": "k", "concurrency": 1}]},
    {"capability": "a.b", "key": "k", "fairness_key": "f", "sticky": "s", "trace": "t"},
    {"capability": "a.b", "retry": RetryPolicy()},
    {"capability": "a.b", "delay": 0.0},
)
_BAD: tuple[dict[str, Any], ...] = (
    {},
    {"payload": 1},
    {"capability": "a b"},
    {"capability": 7},
    {"capability": "a.b", "run_timeout": 0},
    {"capability": "a.b", "max_attempts": 0},
    {"capability": "a.b", "unknown": 1},
    {"capability": "a.b", "payload": 1, "priority": "NONE"},
    {"capability": "a.b[", "payload": 1},
    {"capability": ["a.b"]},
)


@pytest.mark.parametrize("given", _GOOD)
def test_a_task_made_by_a_call_is_the_one_that_pydantic_makes(given: dict[str, Any]) -> None:
    meant = TaskCreate.model_validate(given)
    for _ in range(3):
        made = TaskCreate(**given)
        assert made == meant
        assert list(made.__dict__.items()) == list(meant.__dict__.items())
        assert [type(value) for value in made.__dict__.values()] == [type(value) for value in meant.__dict__.values()]
        assert made.model_fields_set == meant.model_fields_set
        assert made.model_dump_json(exclude_unset=True) == meant.model_dump_json(exclude_unset=True)
        assert content_of(made) == content_of(meant)


@pytest.mark.parametrize("given", _BAD)
def test_a_task_that_is_wrong_is_refused_in_pydantics_words(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as meant:
        TaskCreate.model_validate(given)
    for _ in range(2):
        with pytest.raises(ValidationError) as told:
            TaskCreate(**given)
        assert str(told.value) == str(meant.value)


def test_tasks_that_are_made_alike_share_nothing_that_can_be_changed() -> None:
    one, other = TaskCreate(capability="a.b", payload=1), TaskCreate(capability="a.b", payload=1)
    for name, value in one.__dict__.items():
        if isinstance(value, dict | list | set):
            assert value is not other.__dict__[name], name
    one.metadata["mine"] = 1
    one.model_fields_set.add("metadata")
    assert (other.metadata, TaskCreate(capability="a.b").metadata) == ({}, {})
    assert TaskCreate(capability="a.b").model_fields_set == {"capability"}


def test_a_task_made_alike_is_a_model_as_any_other() -> None:
    task = TaskCreate(capability="a.b", payload={"n": [1]})
    for same in (copy.copy(task), copy.deepcopy(task), pickle.loads(pickle.dumps(task)), task.model_copy()):  # noqa: S301
        assert same == task
        assert same.model_fields_set == {"capability", "payload"}
    other = task.model_copy(update={"capability": "c.d", "priority": TaskPriority.LOW})
    assert content_of(other) == b'{"capability":"c.d","priority":"LOW","payload":{"n":[1]}}'
    assert content_of(task) == b'{"capability":"a.b","payload":{"n":[1]}}'
    with pytest.raises(ValidationError, match="frozen"):
        task.capability = "x"  # type: ignore[misc] # that is what is tried


def test_only_what_tasks_have_in_common_is_remembered() -> None:
    _validated.cache_clear()
    for n in range(10):
        TaskCreate(capability="a.b", key=f"k{n}", metadata={"n": n})
        TaskCreate(capability="a.b", fairness_key=f"f{n}")
        TaskCreate(capability="a.b", payload=n)
    assert _validated.cache_info().currsize == 1
    assert make_alike(TaskCreate(capability="a.b"), 1, {"capability": "a.b", "tags": ("x",)}) is False


def test_a_message_is_the_same_by_whichever_way_it_is_written() -> None:
    pool, client = check_pool("p"), ClientId("c")
    usual = submission_of(TaskCreate(capability="a.b", payload={"n": 'ä"'}), pool, client)[1]
    asked = submission_of(TaskCreate(capability="a.b", payload={"n": 'ä"'}, priority="LOW"), pool, client)[1]  # type: ignore[arg-type]
    assert usual.body == (
        b'{"v":1,"id":"%b","reply_to":"c","capability":"a.b","payload":{"n":"\xc3\xa4\\""}}' % usual.task_id.encode()
    )
    assert asked.body == (
        b'{"v":1,"id":"%b","reply_to":"c","capability":"a.b","priority":"LOW","payload":{"n":"\xc3\xa4\\""}}'
        % asked.task_id.encode()
    )
    alone = submission_of(TaskCreate(capability="a.b"), pool, None)[1]
    assert alone.body == b'{"v":1,"id":"%b","capability":"a.b"}' % alone.task_id.encode()
