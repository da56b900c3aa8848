"""What must be true of a scheduler's memory after each pass, whatever has happened.

Everything that the scheduler counts is counted anew here, from the tasks themselves: room, limits, shares, classes,
families, timers. What memory and ledger must have in common is in `consistency`.
"""

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from bus.messages import Report, TaskResult, TaskUpdate
from bus.states import AgentHealth, AgentStatus, TaskStatus
from dispatcher.core import lifecycle, reports, steering
from dispatcher.core.board import Board
from dispatcher.core.decisions import Decisions
from dispatcher.core.fleet import RequirementClass
from dispatcher.core.limits import Gate
from dispatcher.core.model import AgentState, Attempt, TaskState
from dispatcher.core.timers import TimerKind, Timers

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

IN_HANDS = (TaskStatus.ASSIGNED, TaskStatus.RUNNING)


def check_memory(board: Board) -> None:
    """Fail if anything is counted wrongly, or forgotten."""
    _check_agents(board)
    _check_held(board)
    _check_waiting(board)
    _check_families(board)
    _check_rest(board)
    _check_timers(board)


def in_hands(board: Board) -> list[tuple[TaskState, Attempt]]:
    """Return the tasks that agents have."""
    return [
        (task, task.current)
        for agent in board.fleet.agents.values()
        for task in agent.tasks.values()
        if task.current is not None
    ]


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
            if not current.waiting:
                used += task.terms.requirement.slots
                for name, much in task.terms.requirement.resources:
                    granted[name] += much
        assert agent.used == used, f"{agent.id}: {agent.used} slots are taken and not {used}"
        assert agent.granted == granted, f"{agent.id}: {agent.granted} is granted and not {granted}"
        idle = AgentStatus.RUNNING if not agent.tasks else AgentStatus.IDLE
        assert agent.status is not idle, f"{agent.id} is {agent.status} with {list(agent.tasks)}"
        assert fleet._by_index[agent.index] is agent, f"{agent.id} is not where its bit is"
        assert agent.level == fleet._level(agent), f"{agent.id} is not in the level of its room"
    for task in board.tasks.values():
        if task.status in IN_HANDS:
            agent = task.agent
            assert agent is not None and agent.tasks.get(task.id) is task, f"{task.id} is in nobody's hands"
    levels = [0] * len(fleet._levels)
    for agent in fleet.agents.values():
        if agent.level >= 0:
            levels[agent.level] |= 1 << agent.index
    assert fleet._levels == levels, f"the levels of room are {fleet._levels} and not {levels}"


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


def _check_families(board: Board) -> None:
    family = board.family
    for parent, children in family._children.items():
        for child in children:
            task = board.live(child)
            assert task is not None and task.kin is not None, f"{child} of {parent} is not live"
            assert task.kin.parent == parent, f"{child} is {task.kin.parent}'s and not {parent}'s"
    cut = {child for children, _ in family.orphaned for child in children}
    for task in board.tasks.values():
        if task.kin is None or task.kin.parent is None or task.requeues or task.cancellation is not None:
            continue
        parent = board.live(task.kin.parent)
        if parent is not None and not parent.requeues:
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
        mark = task.id, task.attempt
        current = task.current
        if task.status is TaskStatus.PENDING:
            if task.line is None:
                assert (TimerKind.READY, *mark) in clock, f"{task.id} is nowhere"
            if task.expires_at is not None and not task.begun:
                assert (TimerKind.EXPIRE, task.id, 0) in clock, f"{task.id} would wait for ever"
        elif current is not None:
            if task.cancellation is not None:
                assert (TimerKind.CANCEL, *mark) in horizon, f"the cancel of {task.id} has no end"
            if task.status is TaskStatus.RUNNING and lifecycle.run_until(board, task, current) is not None:
                assert (TimerKind.RUN_TIMEOUT, *mark) in horizon, f"{task.id} may run for ever"
            if task.status is TaskStatus.RUNNING and task.terms.progress_timeout_ms is not None:
                assert (TimerKind.PROGRESS, *mark) in horizon, f"{task.id} may be silent for ever"
    for agent in board.fleet.agents.values():
        if agent.status is not AgentStatus.STOPPED and agent.health is not AgentHealth.LOST:
            assert (TimerKind.LEASE, agent.id, agent.life) in horizon, f"the lease of {agent.id} never ends"
        if agent.throttled:
            assert (TimerKind.THROTTLE, agent.id, 0) in clock, f"{agent.id} is throttled for ever"
        foreign = [task for task in agent.tasks.values() if task.current and task.current.session != agent.session]
        if agent.status is AgentStatus.STOPPED or foreign:
            assert not agent.tasks or (TimerKind.SESSION, agent.id, 0) in horizon, f"{agent.id} keeps its tasks"
    for task_id in board.tombstones:
        assert (TimerKind.TOMBSTONE, task_id, 0) in clock, f"the tombstone of {task_id} stands for ever"


def _set(timers: Timers) -> set[tuple[TimerKind, str, int]]:
    return {timer[2:] for timer in timers._heap}


class Bounds:
    """The bounds of concurrency of one leader: nobody new is let in above them.

    Some may be above them all the same: whoever had begun before the bound was stated, or before this leader came, and
    an attempt that goes on after its children have ended.
    """

    def __init__(self, board: Board) -> None:
        self._stated: dict[str, int] = {}
        self._excused: dict[str, set[tuple[str, int]]] = defaultdict(set)
        self._waited: set[tuple[str, int]] = set()
        self._excuse("l", board)

    def _excuse(self, key: str, board: Board) -> None:
        self._excused[key] |= {(task.id, task.attempt) for task, _ in in_hands(board)}

    def check(self, board: Board) -> None:
        """Look at who is in agents' hands."""
        gates: dict[str, Gate] = {}
        for cls in board.fleet.classes.values():
            gates |= {gate.key: gate for gate in cls.gates if gate.concurrency is not None}
        for gate in board.fleet._capability_gates.values():
            gates |= {one.key: one for one in gate if one.concurrency is not None}
        stated = {key: gate.concurrency or 0 for key, gate in gates.items()}
        for key, most in stated.items():
            if key.startswith("capability") and self._stated.get(key) != most:
                self._excuse(key, board)
        self._stated = stated
        counted: defaultdict[str, set[tuple[str, int]]] = defaultdict(set)
        for task, current in in_hands(board):
            if current.waiting:
                self._waited.add((task.id, task.attempt))
            for gate in current.gates:
                counted[gate.key].add((task.id, task.attempt))
        for key, most in stated.items():
            fresh = counted[key] - self._excused[key] - self._waited
            assert len(fresh) <= most, f"{key}: {fresh} are more than {most}"


class Invariants:
    """What is checked of one leader, pass by pass."""

    def __init__(self, world: "Simulation", board: Board) -> None:
        self._world, self._board = world, board
        self._bounds = Bounds(board)
        check_memory(board)

    def after_pass(self, decisions: Decisions) -> None:
        """Check the scheduler's memory, and what it has decided."""
        board = self._board
        for given in decisions.transitions:
            if given.status is TaskStatus.ASSIGNED and given.agent_id is not None and given.reason is None:
                _check_given(board.fleet.agents[given.agent_id], given.task_id)
        check_memory(board)
        self._bounds.check(board)
        self._check_fences()

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
        said = {"task_id": task.id, "attempt": attempt}
        report = Report(
            agent_id=who,
            session=session,
            updates=(TaskUpdate(**said, progress=0.9, waiting=not current.waiting, extend=9),),
            results=(TaskResult.model_validate({**said, "status": "COMPLETED", "output": "stale"}),),
            returned=({"task_id": task.id, "attempt": attempt},),  # type: ignore[arg-type] - validated
        )
        self._world.counts["stale reports"] += 1
        before = _seen(task, current)
        reports.take(board, report, board.now)
        assert _seen(task, current) == before, f"{task.id}: {report} is stale and was believed"
        assert not board._touched and not board.draft.transitions, f"{task.id}: {report} is stale and had effects"
        board.draft.stale.clear()


def _seen(task: TaskState, current: Attempt) -> tuple[object, ...]:
    return task.guard, task.current is current, current.waiting, current.heard_at, current.extended_ms, current.progress


def _check_given(agent: AgentState, task_id: str) -> None:
    """Fail if an agent was given something that takes nothing."""
    assert agent.pause is None, f"{agent.id} is paused and was given {task_id}"
    assert agent.status is not AgentStatus.DRAINING, f"{agent.id} leaves and was given {task_id}"
    assert not steering.leaves(agent), f"{agent.id} is to leave and was given {task_id}"
    assert agent.health is AgentHealth.HEALTHY, f"{agent.id} is {agent.health} and was given {task_id}"
