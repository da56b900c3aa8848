"""Whatever befalls a simulated pool, every task ends, once, and every slot is returned. A failure prints its seed.

No child lives on for long when its parent was cancelled or has failed.

`CALLBOARD_TEST_SEEDS=20000` runs so many; `CALLBOARD_TEST_SEED=17` that one alone.
"""

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from bus.records import Guard
from bus.states import TaskStatus
from tests.simulation.simulation import Simulation

PER_PART = 20
SEEDS = int(os.environ.get("CALLBOARD_TEST_SEEDS", "2000"))
ONLY = os.environ.get("CALLBOARD_TEST_SEED")


def simulate(seed: int) -> Simulation:
    simulation = Simulation(seed)
    try:
        simulation.run()
    except Exception as error:
        raise AssertionError(f"CALLBOARD_TEST_SEED={seed} fails: {error!r}") from error
    return simulation


def survivors(seeds: range) -> int:
    """Run all of `seeds`; return how many there were."""
    return len([simulate(seed) for seed in seeds])


@pytest.mark.timeout(900)
def test_whatever_happens_every_task_ends_once() -> None:
    if ONLY:
        simulate(int(ONLY))
        return
    parts = [range(first, min(first + PER_PART, SEEDS)) for first in range(0, SEEDS, PER_PART)]
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as processes:
        assert sum(processes.map(survivors, parts)) == SEEDS


def test_a_seed_is_a_whole_run() -> None:
    first, second = simulate(5), simulate(5)
    assert first.ledger.ends == second.ledger.ends
    assert (first.now, first.executions) == (second.now, second.executions)


def test_enough_happens_in_the_runs() -> None:
    runs = [simulate(seed) for seed in range(40)]
    ends = [Guard.parse(end).status for run in runs for end in run.ledger.ends.values()]
    assert {TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED} == set(ends)
    assert ends.count(TaskStatus.COMPLETED) > len(ends) / 2
    assert sum(count > 1 for run in runs for count in run.executions.values()) > 40, "tasks ran again"
    assert sum(len(run.ledger.agents) for run in runs) > 100
    assert sum(len(run.parents) for run in runs) > 200, "children"
    badly = [child for run in runs for child in run.parents if "CANCELLED" in run.ledger.ends[child]]
    assert len(badly) > 20, "children that were cancelled"
    outcomes = [progress for run in runs for progress in run.schedule_progress().values()]
    assert sum(progress.fired for progress in outcomes) > 200
    assert sum(progress.skipped for progress in outcomes) > 10
    assert sum(progress.replaced for progress in outcomes) > 10
