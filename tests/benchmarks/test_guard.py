"""What a task costs is counted, and is what it was: `python -m benchmarks.guard --record` says what it may be."""

import pytest

from benchmarks import guard


@pytest.mark.alone
@pytest.mark.timeout(240)
def test_a_task_costs_server_and_processes_what_is_recorded() -> None:
    assert guard.check_flow(guard.read()["flow"]) == {}


def test_a_task_costs_the_scheduling_core_what_is_recorded() -> None:
    recorded = guard.read().get(guard.version())
    if recorded is None:
        pytest.skip(f"nothing is recorded for Python {guard.version()}: {guard.RECORD}")
    assert guard.compare(guard.core(), recorded) == {}


def test_calls_in_the_core_are_counted_alike_every_time() -> None:
    assert guard.core() == guard.core()


@pytest.mark.parametrize(
    ("cost", "words"),
    [(110.0, None), (110.1, "more than a tenth more"), (75.0, None), (74.9, "is only 74.9")],
)
def test_a_cost_may_grow_by_a_tenth_and_fall_by_a_quarter(cost: float, words: str | None) -> None:
    wrong = guard.compare({"requests": cost}, {"requests": 100.0})
    assert (words is None) == (wrong == {})
    if words is not None:
        assert words in wrong["requests"]
        assert guard.RECORD in wrong["requests"]


def test_a_cost_that_is_new_or_gone_must_be_recorded() -> None:
    wrong = guard.compare({"new": 1.0}, {"gone": 1.0})
    assert wrong.keys() == {"new", "gone"}
    assert all(guard.RECORD in problem for problem in wrong.values())
