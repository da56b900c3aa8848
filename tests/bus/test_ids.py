"""Patterns mean the same wherever an id is checked: by Python, and by pydantic, whose expressions are Rust's."""

from collections.abc import Callable
from typing import Annotated

import pytest
from pydantic import Field, TypeAdapter, ValidationError

from agent_runtime.settings import AgentSettings
from bus.ids import (
    AGENT_ID_PATTERN,
    CAPABILITY_PATTERN,
    POOL_PATTERN,
    SESSION_PATTERN,
    TASK_ID_PATTERN,
    check_agent_id,
    check_pool,
    entry_task_id,
    keyed_task_id,
    new_task_id,
    task_pool,
)

GOOD = {
    POOL_PATTERN: "default",
    TASK_ID_PATTERN: "default.1a",
    AGENT_ID_PATTERN: "agent@host.1",
    SESSION_PATTERN: "a_b-1",
    CAPABILITY_PATTERN: "text.count/v2",
}


@pytest.mark.parametrize("pattern", GOOD)
def test_pydantic_takes_an_id_whole(pattern: str) -> None:
    field: TypeAdapter[str] = TypeAdapter(Annotated[str, Field(pattern=pattern)])
    assert field.validate_python(GOOD[pattern]) == GOOD[pattern]
    for bad in (f"{GOOD[pattern]}\n", f"\n{GOOD[pattern]}", f"{GOOD[pattern]}\nx", f"x y\n{GOOD[pattern]}"):
        with pytest.raises(ValidationError):
            field.validate_python(bad)


@pytest.mark.parametrize(
    ("check", "good"),
    [(check_pool, "default"), (check_agent_id, "a1"), (task_pool, "default.1a")],
)
def test_python_takes_an_id_whole(check: Callable[[str], str], good: str) -> None:
    assert check(good) in good
    for bad in (f"{good}\n", f"\n{good}", f"{good} ", f"{good}\nx", ""):
        with pytest.raises(ValueError, match=r"pool|agent id|task id"):
            check(bad)


def test_settings_take_no_agent_id_with_a_newline() -> None:
    assert AgentSettings(agent_id="a1").agent_id == "a1"
    with pytest.raises(ValidationError, match="use 1-128 letters"):
        AgentSettings(agent_id="a1\n")


def test_ids_that_are_made_are_ids() -> None:
    pool = check_pool("p-1")
    for made in (new_task_id(pool), keyed_task_id(pool, "any\nkey"), entry_task_id(pool, "urgent", "1795563424740-12")):
        assert task_pool(made) == pool
