"""What must be true of a scheduler's memory after each pass, whatever has happened.

Everything that the scheduler counts is counted anew here, from the tasks themselves: room, limits, shares, classes,
families, timers. What memory and ledger must have in common is in `consistency`.
"""

from collections import Counter, defaultdict
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Final

from bus.messages import Report
from bus.states import AgentHealth, AgentStatus, TaskStatus
from dispatcher.core import deadlines, reports, steering
from dispatcher.core.board import Board
from dispatcher.core.decisions import Decisions
from dispatcher.core.model import AgentState, Attempt, TaskState
from dispatcher.core.timers import TimerKind, Timers
from tests.simulation.limits import Bounds, in_hands

if TYPE_CHECKING:
    from dispatcher.core.fleet import RequirementClass
    from tests.simulation.simulation import Simulation

LOOK_EVERY: Final = 8
"""Of passes in which nothing was decided, and only hearts have beaten, so many are not looked at but the last."""
Timer = tuple[TimerKind, str, int]
IN_HANDS: Final = (TaskStatus.ASSIGNED, TaskStatus.RUNNING)


def check_memory(board: Board) -> None:
    """Fail if anything is counted wrongly, or forgotten."""
    _check_agents(board)
    _check_held(board)
    _check_waiting(board)
    _check_room(board)
    _check_families(board)
    _check_rest(board)
    _check_timers(board)


def _check_agents(board: Board) -> None:
    fleet = board.fleet
    for agent in fleet.agents.values():
        used, granted = 0, dict.fromkeys(agent.granted, 0)
        for task in agent.tasks.values():
            current = task.current
            assert board.tasks.get(task.id) is task, f"{agent.id} has {task.id}, which is not live"
            assert current is not None, f"{agent.id} has {task.id}, which has no attempt"
            assert current.agent is agent, f"{task.id} is {agent.id}'s and another's"
            assert task.status in IN_HANDS, f"{agent.id} has {task.id}, which is {task.status}"
            if not current.waiting and current.session == agent.session:
                used += task.terms.requirement.slots
                for name, much in task.terms.requirement.resources:
                    granted[name] += much
        assert agent.used == used, f"{agent.id}: {agent.used} slots are taken and not {used}"
        assert agent.granted == granted, f"{agent.id}: {agent.granted} is granted and not {granted}"
        idle = AgentStatus.RUNNING if not agent.tasks else AgentStatus.IDLE
        assert agent.status is not idle, f"{agent.id} is {agent.status} with {list(agent.tasks)}"
        assert fleet.levels._by_index[agent.index] is agent, f"{agent.id} is not where its bit is"
        assert agent.level == fleet.levels._level(agent), f"{agent.id} is not in the level of its room"
    for task in [task for task in board.tasks.values() if task.status in IN_HANDS]:
        assert task.agent is not None, f"{task.id} is in nobody's hands"
        assert task.agent.tasks.get(task.id) is task, f"{task.agent.id} does not know of {task.id}"
    levels = [0] * len(fleet.levels._levels)
    for agent in fleet.agents.values():
        if agent.level >= 0:
            levels[agent.level] |= 1 << agent.index
    assert fleet.levels._levels == levels, f"the levels of room are {fleet.levels._levels} and not {levels}"


def _check_held(board: Board) -> None:
    held: Counter[str] = Counter()
    running: Counter[str] = Counter()
    for task, current in in_hands(board):
        if current.waiting:
            assert current.gates == (), f"{task.id} waits for its children and counts for {current.gates}"
            continue
        counted = {gate.key for gate in current.gates}
        held.update(counted)
        running[task.terms.fairness_key or ""] += task.terms.requirement.slots
        wanted = {gate.key for gate in board.fleet.class_of(task.terms).gates}
        assert wanted <= counted, f"{task.id} does not count for {wanted - counted}"
    assert board.limits._held == dict(held), f"{board.limits._held} is held and not {dict(held)}"
    waiting = Counter(task.terms.fairness_key or "" for task in board.tasks.values() if task.line is not None)
    shares = {key: (share.running, share.waiting) for key, share in board.order._shares.items()}
    counted_shares = {key: (running[key], waiting[key]) for key in running.keys() | waiting.keys()}
    assert shares == counted_shares, f"shares are {shares} and not {counted_shares}"


def _check_waiting(board: Board) -> None:
    order, fleet = board.order, board.fleet
    waiting: defaultdict[RequirementClass, list[TaskState]] = defaultdict(list)
    for task in board.tasks.values():
        if task.line is not None:
            assert task.status is TaskStatus.PENDING, f"{task.id} is {task.status} and waits"
            assert task.line.lane.priority is task.terms.priority, f"{task.id} waits in another level"
            waiting[task.line.cls].append(task)
    known = set(fleet.classes.values())
    assert waiting.keys() <= known, "tasks wait in a class that is forgotten"
    for cls in known:
        assert cls.waiting == len(waiting[cls]), f"{cls.requirement}: {cls.waiting} wait and not {len(waiting[cls])}"
        levels = dict.fromkeys(cls.by_priority, 0)
        for task in waiting[cls]:
            levels[task.terms.priority] += 1
        assert cls.by_priority == levels, f"{cls.requirement}: {cls.by_priority} and not {levels}"
        assert cls.blocked is (cls in order.blocked), f"{cls.requirement} is blocked, or is not"
    placeable = sum(len(tasks) for cls, tasks in waiting.items() if not cls.blocked)
    assert order.placeable == placeable, f"{order.placeable} could be placed and not {placeable}"
    for cls in [cls for cls, score in order.blocked.items() if score is None and cls.waiting]:
        keys = [key for key, queue in board.limits._queues.items() if cls in queue]
        assert any(board.limits.held(key) or key in board.limits._rung for key in keys), (
            f"{cls.requirement} is held up by {keys}, and nothing will ever open it"
        )


def _check_room(board: Board) -> None:
    """Fail if a task waits for room that is there, and which nobody keeps free for another."""
    fleet = board.fleet
    if fleet.levels.gained:
        return  # the next pass looks at who has more room now
    for cls, score in board.order.blocked.items():
        if score is None or not cls.waiting:
            continue
        barred = board.reservations.barred(cls, score)
        for agent in fleet.eligible(cls):
            room = agent.open and agent.fits(cls.requirement) and not barred >> agent.index & 1
            assert not room, f"{agent.id} has room for a task of {cls.requirement}, and {cls.waiting} of them wait"


def _check_families(board: Board) -> None:
    family = board.family
    for whose, children in family._children.items():
        for child in children:
            task = board.live(child)
            assert task is not None, f"{child} of {whose} is not live"
            assert task.kin is not None, f"{child} of {whose} is nobody's child"
            assert task.kin.parent == whose, f"{child} is {task.kin.parent}'s and not {whose}'s"
    cut = {child for children, _ in family.orphaned for child in children}
    for task in board.tasks.values():
        if task.kin is None or task.kin.parent is None or task.requeues or task.cancellation is not None:
            continue
        parent = board.live(task.kin.parent)
        # One that is younger (or as young, by a clock that stood still) has been submitted once more, and the ledger is
        # about to say so.
        if parent is not None and not parent.requeues and parent.enqueued_at < task.enqueued_at:
            known = task.id in family._children.get(parent.id, ()) or task.id in cut
            assert known, f"{parent.id} does not know its child {task.id}"


def _check_rest(board: Board) -> None:
    live = board.tasks.keys()
    assert not any(task.status.terminal for task in board.tasks.values()), "what has ended is kept"
    assert not board.hasty.keys() - live, "what has ended is to fail fast"
    assert not board.sticky.wanted.keys() - live, "what has ended has a sticky key"
    runs = {task_id for tasks in board.schedules.runs.values() for task_id in tasks}
    assert runs == board.schedules._schedule_of.keys() <= live, "what has ended is a schedule's"
    for cls, held in board.reservations._held.items():
        assert cls in board.order.blocked or cls.waiting, f"{held.agent.id} is kept free for nobody"
    assert not board.purged, "what is to be deleted is not"


def _check_timers(board: Board) -> None:
    clock, horizon = _set(board.clock_timers), _set(board.horizon_timers)
    for task in board.tasks.values():
        if task.status is TaskStatus.PENDING:
            if task.line is None:
                assert (TimerKind.READY, task.id, task.attempt) in clock, f"{task.id} is nowhere"
            if task.expires_at is not None and not task.begun:
                assert (TimerKind.EXPIRE, task.id, 0) in clock, f"{task.id} would wait for ever"
        elif task.current is not None:
            _check_ends(board, task, task.current, horizon)
    for task_id in board.tombstones:
        assert (TimerKind.TOMBSTONE, task_id, 0) in clock, f"the tombstone of {task_id} stands for ever"
    _check_agents_timers(board, clock, horizon)


def _check_agents_timers(board: Board, clock: AbstractSet[Timer], horizon: AbstractSet[Timer]) -> None:
    for agent in board.fleet.agents.values():
        if agent.status is not AgentStatus.STOPPED and agent.health is not AgentHealth.LOST:
            assert (TimerKind.LEASE, agent.id, agent.life) in horizon, f"the lease of {agent.id} never ends"
        if agent.throttled:
            assert (TimerKind.THROTTLE, agent.id, 0) in clock, f"{agent.id} is throttled for ever"
        foreign = [task for task in agent.tasks.values() if task.current and task.current.session != agent.session]
        if foreign or (agent.tasks and agent.status is AgentStatus.STOPPED):
            assert (TimerKind.SESSION, agent.id, 0) in horizon, f"{agent.id} keeps its tasks for ever"


def _check_ends(board: Board, task: TaskState, current: Attempt, horizon: AbstractSet[Timer]) -> None:
    """Fail if an attempt that is to end by itself will not."""
    mark = task.id, task.attempt
    if task.cancellation is not None:
        assert (TimerKind.CANCEL, *mark) in horizon, f"the cancel of {task.id} has no end"
    if task.status is TaskStatus.RUNNING:
        if deadlines.run_until(board, task, current) is not None:
            assert (TimerKind.RUN_TIMEOUT, *mark) in horizon, f"{task.id} may run for ever"
        if task.terms.progress_timeout_ms is not None:
            assert (TimerKind.PROGRESS, *mark) in horizon, f"{task.id} may be silent for ever"


def _set(timers: Timers) -> set[Timer]:
    return {timer[2:] for timer in timers._heap}


class Invariants:
    """What is checked of one leader, pass by pass."""

    def __init__(self, world: "Simulation", board: Board) -> None:
        self._world, self._board = world, board
        self._bounds = Bounds(board)
        self._quiet = 0
        self._paused = self._paused_schedules()
        check_memory(board)

    def after_pass(self, decisions: Decisions, *, quiet: bool) -> None:
        """Check the scheduler's memory, and what it has decided; after `quiet` passes not each time."""
        board = self._board
        paused, self._paused = self._paused, self._paused_schedules()
        for one in decisions.firings:
            assert one.outcome != "fired" or one.schedule not in paused & self._paused, f"{one} of a paused schedule"
        self._quiet = self._quiet + 1 if quiet and not len(decisions) else 0
        if self._quiet % LOOK_EVERY:
            return
        for given in decisions.transitions:
            if given.status is TaskStatus.ASSIGNED and given.agent_id is not None and given.reason is None:
                _check_given(board.fleet.agents[given.agent_id], given.task_id)
        check_memory(board)
        self._bounds.check(board)
        self._check_fences()

    def _paused_schedules(self) -> set[str]:
        return {name for name, one in self._board.schedules.by_id.items() if one.progress.paused}

    def _check_fences(self) -> None:
        """Say something of an attempt that is not current, in all the ways there are; nothing may come of it."""
        board, rng = self._board, self._world.rng
        held = in_hands(board)
        if not held or rng.random() < 0.9:
            return
        task, current = rng.choice(held)
        agent_id = current.agent.id if current.agent is not None else ""
        who, session, attempt = rng.choice(
            (
                (agent_id, current.session, task.attempt + 1),
                (agent_id, "another", task.attempt),
                ("another", current.session, task.attempt),
                *([(agent_id, current.session, task.attempt - 1)] if task.attempt > 1 else []),
            )
        )
        item = {"task_id": task.id, "attempt": attempt}
        report = Report.model_validate(
            {
                "agent_id": who,
                "session": session,
                "updates": [{**item, "progress": 0.9, "waiting": not current.waiting, "extend": 9}],
                "results": [{**item, "status": "COMPLETED", "output": "stale"}],
                "returned": [item],
            }
        )
        self._world.counts["stale reports"] += 1
        before = _seen(task, current)
        reports.take(board, report, board.now)
        assert _seen(task, current) == before, f"{task.id}: {report} is stale and was believed"
        assert not board._touched, f"{task.id}: {report} is stale and had effects"
        assert not board.draft.transitions, f"{task.id}: {report} is stale and was told"
        board.draft.stale.clear()


def _seen(task: TaskState, current: Attempt) -> tuple[object, ...]:
    return task.guard, task.current is current, current.waiting, current.heard_at, current.extended_ms, current.progress


def _check_given(agent: AgentState, task_id: str) -> None:
    """Fail if an agent was given something that takes nothing."""
    assert agent.pause is None, f"{agent.id} is paused and was given {task_id}"
    assert agent.status is not AgentStatus.DRAINING, f"{agent.id} leaves and was given {task_id}"
    assert not steering.leaves(agent), f"{agent.id} is to leave and was given {task_id}"
    assert agent.health is AgentHealth.HEALTHY, f"{agent.id} is {agent.health} and was given {task_id}"
