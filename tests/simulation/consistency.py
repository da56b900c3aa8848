"""What must be true of the ledger after each commit, of memory and ledger together, and when all is over."""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from itertools import zip_longest
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from pydantic_core import from_json

from bus.states import TaskStatus
from dispatcher.core.board import Board
from dispatcher.core.bounds import POOL
from dispatcher.core.decisions import NoteKind, Place
from dispatcher.core.record import encode_run, restore
from dispatcher.core.timers import TimerKind
from tests.simulation.ledger import MemoryLedger

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

ORPHAN_MS: Final = 40_000
"""A child that the ledger has may outlive a parent that ended badly by so much: its grace, and leaders in trouble."""

_task: Final = attrgetter(
    *("status", "attempt", "enqueued_at", "priority", "not_before", "failures", "error"),
    *("watchers", "attempts", "requeues", "cancellation"),
)
_attempt: Final = attrgetter(
    "session", "assigned_at", "started_at", "extended_ms", "waiting", "progress", "note", "why"
)


def check_ledger(world: "Simulation") -> None:
    """Fail if what is stored contradicts itself."""
    ledger = world.ledger
    by_status: dict[TaskStatus, set[str]] = {status: set() for status in TaskStatus}
    for task_id, record in ledger.tasks.items():
        by_status[record.status].add(task_id)
        if record.status.terminal:
            assert ledger.ends.get(task_id) == record.guard, f"{task_id}: a terminal state changed"
    indexes = ledger.indexes
    pending, delayed = indexes[Place.WAITING].keys(), indexes[Place.DELAYED].keys()
    assert not pending & delayed, f"{pending & delayed} wait twice"
    for what, index, statuses in (
        ("wait", pending | delayed, {TaskStatus.PENDING}),
        ("are in agents' hands", indexes[Place.ACTIVE].keys(), {TaskStatus.ASSIGNED, TaskStatus.RUNNING}),
        ("have ended", indexes[Place.DONE].keys(), {status for status in TaskStatus if status.terminal}),
        ("are dead", indexes[Place.DEAD].keys(), {TaskStatus.FAILED}),
    ):
        right = set[str]().union(*(by_status[status] for status in statuses))
        assert index == right, f"{index ^ right} {what}, or not, by the index"
    assert ledger.ends.keys() <= ledger.tasks.keys(), "the end of nothing"
    for scope in ledger.notes_of(NoteKind.BOUND):
        waiting = {one for one in by_status[TaskStatus.PENDING] if scope in (POOL, ledger.tasks[one].header.capability)}
        assert ledger.queues.get(scope, set()) == waiting, f"what counts for the bound of {scope} is not what waits"
    world.rates.check(ledger.starts)
    _check_orphans(world)


def _check_orphans(world: "Simulation") -> None:
    ledger = world.ledger
    for child, parent in world.parents.items():
        end, record = ledger.ends.get(parent), ledger.tasks.get(child)
        if end is None or record is None or child in ledger.ends or end.startswith("COMPLETED"):
            continue
        since = max(ledger.ended_at[parent], record.at)
        assert record.lives > 1 or world.now - since < ORPHAN_MS, f"{child} outlives {parent}"


def check_agreement(board: Board, ledger: MemoryLedger) -> None:
    """Fail if a leader would find something else than what is remembered; when all that was decided is stored."""
    live = {task_id: record for task_id, record in ledger.tasks.items() if task_id not in ledger.ends}
    assert board.tasks.keys() == live.keys(), f"{board.tasks.keys() ^ live.keys()} are only stored, or not at all"
    for task in board.tasks.values():
        record = live[task.id]
        assert task.stored == task.guard == record.guard, f"{task.id} is {task.guard}, and stored as {record.guard}"
        assert encode_run(task) == record.run, f"{task.id}: {encode_run(task)!r} is stored as {record.run!r}"
    known = {agent.id for agent in board.fleet.agents.values() if agent.capabilities}
    assert known == ledger.agents.keys(), f"{known ^ ledger.agents.keys()} are only stored, or not at all"
    for agent_id, stored in ledger.agents.items():
        agent = board.fleet.agents[agent_id]
        assert (agent.session, agent.pause) == (stored.session, stored.pause), f"{agent_id} is stored as {stored}"
        assert (agent.request, agent.update) == (stored.request, stored.update), f"{agent_id} is stored as {stored}"
    rates = {key: float(from_json(value)) for key, value in ledger.notes_of(NoteKind.RATE).items()}
    assert board.limits.arrivals == rates, f"rates are {board.limits.arrivals} and stored as {rates}"
    last = {key: from_json(value)["agent"] for key, value in ledger.notes_of(NoteKind.STICKY).items()}
    assert board.sticky._last == last, f"sticky keys are {board.sticky._last} and stored as {last}"
    for kind, remembered in (
        (NoteKind.TOMBSTONE, board.tombstones.keys()),
        (NoteKind.SWEEP, board.sweeps.keys()),
        (NoteKind.BOUND, board.bounds.in_force.keys()),
        (NoteKind.SCHEDULE, board.schedules.by_id.keys()),
    ):
        assert remembered == ledger.notes_of(kind).keys(), f"{kind}: {remembered ^ ledger.notes_of(kind).keys()}"


def check_restored(board: Board, ledger: MemoryLedger, task_ids: Iterable[str]) -> None:
    """Fail if another leader would not know of these tasks what this one does."""
    for task_id in task_ids:
        task, stored = board.live(task_id), ledger.read(task_id)
        if task is None or stored is None:
            continue
        other = restore(stored, task.terms, task.agent)
        assert _task(other) == _task(task), f"{task_id} would be {_task(other)}, and is {_task(task)}"
        if task.current is not None and other.current is not None:
            then, now = _attempt(other.current), _attempt(task.current)
            assert then == now, f"the attempt of {task_id} would be {then}, and is {now}"


def check_orphans(board: Board, ledger: MemoryLedger, asked: AbstractSet[str]) -> None:
    """Fail if a child would go on though its parent ended badly; of `asked` parents an answer is on its way."""
    told = asked | board.family.doubtful.keys()
    cut = {child for children, _ in board.family.orphaned for child in children}
    for task in board.tasks.values():
        parent = None if task.kin is None else task.kin.parent
        if parent is None or task.requeues or task.cancellation is not None or parent in told or task.id in cut:
            continue
        end = ledger.ends.get(parent)
        older = end is not None and ledger.tasks[parent].at <= ledger.tasks[task.id].at
        assert not older or str(end).startswith("COMPLETED"), f"{task.id} goes on, and its parent is {end}"


def check_retries(ledger: MemoryLedger) -> int:
    """Fail if a task was tried again after an error of which it says never; return how many such errors there were."""
    seen = 0
    for task_id in ledger.ends:
        stored = ledger.read(task_id)
        if stored is None or stored.header.retry is None or not stored.header.retry.never_for:
            continue
        lives = {life.attempt for life in stored.run.requeues}
        for past, following in zip_longest(stored.run.attempts, stored.run.attempts[1:]):
            if past.outcome == "error" and past.error is not None and past.error.type in stored.header.retry.never_for:
                seen += 1
                assert following is None or past.attempt in lives, f"{task_id} was tried again after {past}"
    return seen


def check_nothing_is_left(board: Board, ledger: MemoryLedger) -> None:
    """Fail if anything is kept of tasks and agents that are no more."""
    for what, left in (
        ("tasks", board.tasks),
        ("agents of the fleet", {one.id: (one.status, one.health, one.reason) for one in board.fleet.agents.values()}),
        ("limits", board.limits._held),
        ("shares", board.order._shares),
        ("children", board.family._children),
        ("orphans", board.family.orphaned),
        ("doubts", board.family.doubtful),
        ("runs of schedules", board.schedules.runs),
        ("tasks of schedules", board.schedules._schedule_of),
        ("sticky keys", board.sticky.wanted),
        ("tasks that are to fail fast", board.hasty),
        ("tombstones", board.tombstones),
        ("sweeps", board.sweeps),
        ("reservations", board.reservations._held),
        ("waiters for a limit", {k: q for k, q in board.limits._queues.items() if any(cls.waiting for cls in q)}),
        ("timers of the horizon", board.horizon_timers._heap),
        ("timers", [timer for timer in board.clock_timers._heap if timer[2] is not TimerKind.FORGET]),
        ("agents", ledger.agents),
        (
            "live tasks",
            [index for place in (Place.ACTIVE, Place.WAITING, Place.DELAYED) if (index := ledger.indexes[place])],
        ),
        ("notes", [note for note in ledger.notes if note[0] in (NoteKind.TOMBSTONE, NoteKind.SWEEP, NoteKind.BREAKER)]),
    ):
        assert not left, f"{what} are left: {left}"
    assert board.order.placeable == 0
