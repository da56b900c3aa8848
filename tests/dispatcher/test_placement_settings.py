"""Policies of placement as they are written in settings, for all pools or for one."""

from typing import Any

import pytest
from pydantic import ValidationError

from bus.states import TaskPriority
from dispatcher.core.config import HEAD_START_MS, SchedulerConfig
from dispatcher.service import config_of
from dispatcher.settings import DispatcherSettings


def config(pool: str = "default", **settings: Any) -> SchedulerConfig:
    return config_of(DispatcherSettings(pools=("default", "reports"), **settings), pool)


def test_what_is_not_said_is_as_it_was() -> None:
    said = config()
    assert said.head_start_ms == HEAD_START_MS
    assert (said.fairness_weights, said.max_pending, said.capability_max_pending) == ({}, None, {})
    usual = SchedulerConfig()
    for name in ("prefetch_ms", "breaker_failures", "breaker_cooldown_ms", "recall_after_ms", "fail_fast_grace_ms"):
        assert getattr(said, name) == getattr(usual, name)


def test_what_is_said_of_a_pool_counts_there_whatever_is_said_of_all() -> None:
    settings = {"head_starts": "reports:HIGH=30m, high=20m,URGENT=2h"}
    assert config(**settings).head_start_ms[TaskPriority.HIGH] == 1_200_000
    assert config("reports", **settings).head_start_ms[TaskPriority.HIGH] == 1_800_000
    assert config("reports", **settings).head_start_ms[TaskPriority.URGENT] == 7_200_000


def test_weights_of_keys_that_hold_a_colon() -> None:
    said = {"fairness_weights": "tenant:7=3,reports:gold=2,a=b=0.5"}
    assert config(**said).fairness_weights == {"tenant:7": 3.0, "a=b": 0.5}
    assert config("reports", **said).fairness_weights == {"tenant:7": 3.0, "gold": 2.0, "a=b": 0.5}


def test_bounds_of_a_pool_and_of_capabilities() -> None:
    said: dict[str, Any] = {"max_pending": ("10000", "reports:500", "text.count=100", "reports:text.count=50")}
    here, there = config(**said), config("reports", **said)
    assert (here.max_pending, here.capability_max_pending) == (10_000, {"text.count": 100})
    assert (there.max_pending, there.capability_max_pending) == (500, {"text.count": 50})


def test_options_that_are_repeated_may_have_commas_too() -> None:
    said: dict[str, Any] = {
        "head_starts": ("URGENT=3h,HIGH=2h", "reports:URGENT=4h"),
        "max_pending": ("7, text.count=5",),
    }
    here = config(**said)
    assert (here.head_start_ms[TaskPriority.URGENT], here.head_start_ms[TaskPriority.HIGH]) == (10_800_000, 7_200_000)
    assert config("reports", **said).head_start_ms[TaskPriority.URGENT] == 14_400_000
    assert (here.max_pending, here.capability_max_pending) == (7, {"text.count": 5})
    assert DispatcherSettings(pools=("a,b", "a")).pools == ("a", "b")


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLBOARD_FAIRNESS_WEIGHTS", "tenant-a=3,tenant-b=0.5")
    monkeypatch.setenv("CALLBOARD_MAX_PENDING", "7")
    said = config()
    assert (said.fairness_weights, said.max_pending) == ({"tenant-a": 3.0, "tenant-b": 0.5}, 7)


@pytest.mark.parametrize(
    ("field", "text", "remedy"),
    [
        ("head_starts", "HIGH=30s", "must not decrease with the level, and in pool 'default' MEDIUM has 60 s and HIGH"),
        ("head_starts", "reports:LOW=2h", "in pool 'reports' LOW has 7200 s"),
        ("head_starts", "SOON=1m", "none of the levels LOW, MEDIUM, HIGH, URGENT"),
        ("head_starts", "repots:HIGH=1h", "none of the levels"),
        ("head_starts", "HIGH", "has no value: write e.g. HIGH=10m"),
        ("head_starts", "HIGH=soon", "is no duration"),
        ("fairness_weights", "a=0", "between"),
        ("fairness_weights", "a=nan", "between"),
        ("fairness_weights", "a=much", "write e.g. tenant-a=3"),
        ("fairness_weights", "=1", "key is missing"),
        ("max_pending", "0", "no number from 1"),
        ("max_pending", "repots:5", "no capability, nor one of a pool"),
        ("max_pending", "text count=5", "is no capability"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_remedy(field: str, text: str, remedy: str) -> None:
    with pytest.raises(ValidationError) as problem:
        config(**{field: text})
    assert remedy in str(problem.value)
