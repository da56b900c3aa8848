"""The same events, times and seed give the same decisions: in this process, and in another one."""

import os
import pickle
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from bus.records import Guard
from bus.states import TaskStatus
from dispatcher.core.decisions import Decisions
from dispatcher.core.scheduler import Scheduler
from tests.dispatcher.core.random_life import RandomLife
from tests.dispatcher.core.world import World

SEED = 8
REPLAY = """
import pickle, sys
from dispatcher.core.scheduler import Scheduler
seed, steps = pickle.load(sys.stdin.buffer)
scheduler = Scheduler(seed=seed)
pickle.dump([scheduler.step(events, now) for events, now in steps], sys.stdout.buffer)
"""


@pytest.fixture(scope="module")
def recorded() -> World:
    """Provide a world after a long random life with retries, timers, lost agents and cancels in it."""
    world = World(seed=SEED)
    life = RandomLife(world, SEED)
    for _ in range(3_000):
        life.step()
    happened = Counter(t.status for d in world.decided for t in d.transitions)
    reasons = {reason for d in world.decided for change in d.retried for reason in change[1:]}
    assert all(happened[status] > 20 for status in TaskStatus), happened
    assert sum(len(d.requeued) for d in world.decided) > 20
    assert sum(d.purged for d in world.decided) > 20
    assert reasons >= {"error", "timeout", "agent_lost", "returned"}, reasons
    return world


def replayed(world: World) -> list[Decisions]:
    scheduler = Scheduler(world.config, seed=SEED)
    return [scheduler.step(events, now) for events, now in world.steps]


def test_a_recorded_run_replayed_gives_identical_decisions(recorded: World) -> None:
    for number, (before, after) in enumerate(zip(recorded.decided, replayed(recorded), strict=True)):
        assert after == before, f"step {number} of {len(recorded.steps)}"


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_another_process_with_other_hashes_decides_the_same(recorded: World, hash_seed: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", REPLAY],
        input=pickle.dumps((SEED, recorded.steps)),
        stdout=subprocess.PIPE,
        check=True,
        cwd=Path(__file__).parents[3],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
    )
    assert pickle.loads(done.stdout) == recorded.decided  # noqa: S301 - written by the process above


@pytest.mark.parametrize("seed", range(40))
def test_no_life_leads_to_a_move_or_a_guard_that_is_wrong(seed: int) -> None:
    """The world checks each change against what the ledger would have, the core each move against its table."""
    world = World(seed=seed)
    life = RandomLife(world, seed)
    for _ in range(250):
        life.step()
    life.rest()
    board = world.scheduler.board
    assert {task.id: task.guard for task in board.tasks.values()} == {
        task_id: guard for task_id, guard in world.stored.items() if guard and not Guard.parse(guard).status.terminal
    }
    held = [task.id for agent in board.fleet.agents.values() for task in agent.tasks.values()]
    assert sorted(held) == sorted(task.id for task in board.tasks.values() if task.status is not TaskStatus.PENDING)
    for agent in board.fleet.agents.values():
        assert agent.used == sum(
            task.current is not None and not task.current.waiting and task.current.session == agent.session
            for task in agent.tasks.values()
        )
    kin = [
        (task.kin.parent, task.id)
        for task in board.tasks.values()
        if task.kin is not None and task.kin.parent and not task.requeues  # a requeued child goes on by itself
    ]
    assert all(
        board.live(parent) or _ended_well(world, parent) or board.tasks[child].cancellation for parent, child in kin
    )


def _ended_well(world: World, task: str) -> bool:
    """Tell whether the ledger has no bad end of a task."""
    return not world.stored.get(task) or Guard.parse(world.stored[task]).status is TaskStatus.COMPLETED


def test_another_seed_decides_otherwise(recorded: World) -> None:
    scheduler = Scheduler(recorded.config, seed=SEED + 1)
    assert [scheduler.step(events, now) for events, now in recorded.steps] != recorded.decided
