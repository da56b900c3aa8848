"""Whatever befalls a simulated pool, every task ends, once, and every slot is returned. A failure prints its seed.

`CALLBOARD_TEST_SEEDS=20000` runs so many; `CALLBOARD_TEST_SEED=17` that one alone.
"""

import os

import pytest

from bus.records import Guard
from bus.states import TaskStatus
from tests.simulation.simulation import Simulation

CHUNKS = 8
SEEDS = int(os.environ.get("CALLBOARD_TEST_SEEDS", "600"))
ONLY = os.environ.get("CALLBOARD_TEST_SEED")


def simulate(seed: int) -> Simulation:
    simulation = Simulation(seed)
    try:
        simulation.run()
    except Exception as error:
        raise AssertionError(f"CALLBOARD_TEST_SEED={seed} fails: {error!r}") from error
    return simulation


@pytest.mark.timeout(600)
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_whatever_happens_every_task_ends_once(chunk: int) -> None:
    for seed in [int(ONLY)] if ONLY else range(chunk, SEEDS, CHUNKS):
        simulate(seed)


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
    outcomes = [progress for run in runs for progress in run.schedule_progress().values()]
    assert sum(progress.fired for progress in outcomes) > 200
    assert sum(progress.skipped for progress in outcomes) > 10
    assert sum(progress.replaced for progress in outcomes) > 10
