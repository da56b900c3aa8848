"""Whatever befalls a simulated pool, every task ends, once in each of its lives, and everything is returned.

The first 400 seeds are run always, so that a red one is of the change and not of the day. A failure prints its seed.
`CALLBOARD_TEST_SEEDS=20000` runs so many: do that after a change of the core. `CALLBOARD_TEST_SEED=17` runs one alone.

Each of these defects, put into the code by hand, turns seeds red; the number is the seed at which it had done so three
times (or, of 100 seeds, how many were red):

| defect                                                       | seen by                               | three red by |
|--------------------------------------------------------------|---------------------------------------|--------------|
| a hold of a limit is not released                            | what is held, counted anew            | 3            |
| the slots of an attempt are not returned                     | what is taken, counted anew           | 3            |
| a requeue forgets past attempts                              | the ledger: nothing is lost           | 5            |
| a requeue forgets the lives before                           | the ledger: nothing is lost           | 23           |
| a requeue forgets the children                               | the ledger: nothing is lost           | 24           |
| the note of a rate is not stored                             | memory and ledger agree               | 4            |
| a new leader forgets the rates                               | memory and ledger agree               | 7            |
| rates are stored with the last call of a commit, not first   | too many starts in a window           | 1 of 100     |
| the note of a tombstone is not stored                        | memory and ledger agree               | 5            |
| a phantom is not stripped from what is decided already       | the guard of a commit                 | 36           |
| a phantom is not withdrawn                                   | memory and ledger agree               | 5            |
| a lease is ignored                                           | every lease has its timer             | 3            |
| leases run by the clock, not by the horizon                  | nothing unread is before the horizon  | 3            |
| a report of another session, or another attempt, is believed | fences                                | 4            |
| a reservation is kept when it is of no use                   | nobody is kept free for nobody        | 12           |
| children are not cut                                         | a parent knows its children           | 17           |
| a new leader does not ask how parents have ended             | no child goes on                      | 8            |
| who waits for a limit is not told when it opens              | nothing would ever open it            | 8            |
| a paused agent is given work                                 | what is given to whom                 | 16           |
| a retry has no timer                                         | nobody PENDING is nowhere             | 4            |
| a run_timeout is not armed anew by a new leader              | every attempt ends by itself          | 8            |
| what waits no longer counts for a bound                      | sets are what waits                   | 3            |
| failures, or a cancel, are not stored                        | what a record restores                | 3            |
| a task is tried again after an error of which it says never  | how attempts follow each other        | 36           |
| what is said to be astray counts no longer, though it waits  | sets are what waits                   | 7            |
| a paused schedule fires                                      | what fires                            | 141          |
| exclusive work of a session that was replaced is given away  | nobody else is at exclusive work      | 4            |
"""

import os
from collections import Counter

import pytest

from bus.records import Guard
from bus.states import TaskStatus
from tests.simulation.simulation import Simulation

PARTS = 20
"""Tests among which the seeds are divided, so that the workers of a run share them."""
SEEDS = 400
"""Run always: 20 for each test."""


def seeds() -> list[int]:
    """Return the seeds of this run."""
    if only := os.environ.get("CALLBOARD_TEST_SEED"):
        return [int(only)]
    return list(range(int(os.environ.get("CALLBOARD_TEST_SEEDS", SEEDS))))


ENOUGH = {
    # what becomes of messages
    "lost messages": 100,
    "repeated messages": 100,
    "known submissions": 40,
    "stale reports": 200,
    # leaders
    "leaders that died": 40,
    "commits cut short": 5,
    "leaders that were out": 5,
    "clocks that stood still": 5,
    "passes stored later": 1_000,
    # agents
    "agents killed": 40,
    "agents frozen": 40,
    "agents blocked": 20,
    "agents replaced": 20,
    "agents doubled": 20,
    "exclusive work": 100,
    "agents left": 20,
    "agents left for good": 20,
    "registrations of the same session": 200,
    "abandoned": 1,
    "handed back": 1,
    "words of running tasks": 300,
    # operators
    "AgentCommand": 20,
    "UpdateAgent": 20,
    "RequeueDead": 20,
    "PurgeDead": 10,
    "CancelMatching": 10,
    "ReprioritiseMatching": 10,
    "CancelTasks": 10,
    "Reprioritise": 10,
    "TimeOutTask": 5,
    "Explain": 10,
    # schedules
    "fired": 100,
    "skipped": 10,
    "replaced": 5,
    "triggered": 5,
    "PauseSchedule": 10,
    "DeleteSchedule": 5,
    # the rest
    "strays": 50,
    "errors that end a task": 2,
}
"""How often it must have happened, at least, in the runs that are looked at."""


def simulate(seed: int) -> Simulation:
    simulation = Simulation(seed)
    try:
        simulation.run()
    except Exception as error:
        raise AssertionError(f"CALLBOARD_TEST_SEED={seed} fails: {error!r}") from error
    return simulation


@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", range(PARTS))
def test_whatever_happens_every_task_ends_once(part: int) -> None:
    for seed in seeds()[part::PARTS]:
        simulate(seed)


def test_a_seed_is_a_whole_run() -> None:
    first, second = simulate(5), simulate(5)
    assert first.ledger.ends == second.ledger.ends
    assert (first.now, first.executions, first.counts) == (second.now, second.executions, second.counts)


def test_enough_happens_in_the_runs() -> None:
    runs = [simulate(seed) for seed in range(60)]
    happened: Counter[str] = Counter()
    for run in runs:
        happened += run.counts
    rare = {what: happened[what] for what, least in ENOUGH.items() if happened[what] < least}
    assert not rare, f"too little of {rare}"
    ends = [Guard.parse(end).status for run in runs for end in run.ledger.ends.values()]
    assert {TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED} == set(ends)
    assert ends.count(TaskStatus.COMPLETED) > len(ends) / 3
    assert sum(count > 1 for run in runs for count in run.executions.values()) > 40, "tasks ran again"
    assert sum(run.ledger.requeued for run in runs) > 40, "dead letters were given a new life"
    assert sum(len(run.ledger.purged) for run in runs) > 10, "dead letters were deleted"
    assert sum(run.rates.seen for run in runs) > 500, "assignments were made"
    assert sum(len(run.parents) for run in runs) > 200, "children"
    badly = [child for run in runs for child in run.parents if "CANCELLED" in run.ledger.ends.get(child, "")]
    assert len(badly) > 20, "children that were cancelled"
    said = {reason for run in runs for reason in _reasons(run)}
    assert {"timeout", "agent_lost", "expired", "rejected", "error", "impossible"} <= said, said


def _reasons(run: Simulation) -> set[str | None]:
    """Return why tasks have failed."""
    return {stored.run.reason for task_id in run.ledger.ends if (stored := run.ledger.read(task_id))}
