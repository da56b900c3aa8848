"""A task's life: the only place where a task's status changes.

Each function is one move of `bus.states.TASK_TRANSITIONS`; `_move` refuses any other, telling the task's history. By a
table of its own `revive` leads out of a terminal status, and nothing else does.
"""

from typing import Final

from bus.messages import CancelAttempt, Control, TaskError
from bus.records import AttemptRecord, Cancellation, CancelOutcome
from bus.states import AgentStatus, FailureReason, TaskStatus, task_may_be_revived, task_may_become
from dispatcher.core import breaker, deadlines, fail_fast, room
from dispatcher.core.board import Board
from dispatcher.core.decisions import Answer, Ended, Placed
from dispatcher.core.fleet import UNKNOWN_LOAD_MS, RequirementClass
from dispatcher.core.model import AgentState, Attempt, TaskState
from dispatcher.core.outcome import outcome_json
from dispatcher.core.retry import poison
from dispatcher.core.timers import TimerKind

KEPT_ATTEMPTS: Final = 50
"""So many past attempts a task's record tells of, the latest."""


class IllegalTransitionError(Exception):
    """A move that the table does not have: a defect of the scheduler. Says what is known of the task."""

    def __init__(self, task: TaskState, after: TaskStatus) -> None:
        past = ", ".join(f"#{a.attempt} {a.outcome} on {a.agent_id}" for a in task.attempts) or "no earlier attempts"
        super().__init__(f"task {task.id}: {task.status} -> {after} (ledger has {task.stored or 'nothing'}; {past})")


def _move(task: TaskState, after: TaskStatus) -> None:
    if not task_may_become(task.status, after):
        raise IllegalTransitionError(task, after)
    task.status = after


def assign(
    board: Board,
    task: TaskState,
    agent: AgentState,
    cls: RequirementClass,
    estimate_ms: float | None,
    *,
    sticky: bool = False,
) -> None:
    """PENDING → ASSIGNED: a new attempt, on `agent`; `sticky` if it was chosen for having had the task's sticky key."""
    _move(task, TaskStatus.ASSIGNED)
    task.attempt += 1
    met = cls.eligible.met_by(agent) if cls.eligible.met else 0
    why = (cls.mask.bit_count(), agent.free)
    task.current = Attempt(agent, agent.session, board.now, why=(*why, met, int(sticky)) if met or sticky else why)
    if task.terms.fail_fast:
        board.hasty.pop(task.id, None)
    if board.sticky.wanted:
        board.draft.notes += board.sticky.given(task.id, agent.id)
    _enter(board, task, task.current, agent, cls, estimate_ms)
    gates = task.current.gates
    if gates or agent.gates:
        board.limits.start((*gates, *agent.gates), board.now)
        board.throttle(agent)
    if agent.breakers:
        breaker.placed(board, agent, task.terms.requirement.capability, task.id)
    board.touch(task)
    board.tell(task)
    if agent.free < 0:
        board.watch(agent)
    due = max(task.enqueued_at, task.not_before)
    board.draft.placed.append(Placed(task.id, task.terms.requirement.capability, max(0, board.now - due)))


def start(board: Board, task: TaskState, current: Attempt, at: int) -> None:
    """Move ASSIGNED → RUNNING: its agent has begun."""
    _move(task, TaskStatus.RUNNING)
    at = max(at, current.assigned_at)  # see `_since`
    current.started_at = current.heard_at = at
    if current.agent is not None:
        current.agent.began(at - current.assigned_at)
    deadlines.arm_timeouts(board, task, current)
    board.touch(task)
    board.tell(task)


def complete(board: Board, task: TaskState, current: Attempt, output: bytes, at: int, run_ms: float) -> None:
    """→ COMPLETED: the current attempt delivered its result."""
    if current.started_at is None:
        current.started_at = max(current.assigned_at, at - int(run_ms))
    _end_attempt(task, "completed", at, None)
    board.fleet.learn(task.terms.requirement.capability, run_ms)
    agent = current.agent
    if agent is not None:
        agent.completed += 1
        agent.tally(task.terms.requirement.capability).ran(run_ms)
        agent.ended(well=True)
        if agent.breakers:
            breaker.succeeded(board, agent, task.terms.requirement.capability)
    if task.cancellation is not None:
        task.cancellation.outcome = CancelOutcome.TOO_LATE
    task.output = output
    task.error = None
    _finish(board, task, TaskStatus.COMPLETED, None, at, run_ms)


def stop(board: Board, task: TaskState, reason: str) -> None:
    """Tell whoever has the task to stop working on it."""
    current = task.current
    if current is not None and current.agent is not None:
        stop = CancelAttempt(session=current.session, task_id=task.id, attempt=task.attempt, reason=reason)
        board.instruct(current.agent.id, Control(stop))


def cancel(
    board: Board, task: TaskState, reason: str, at: int, *, outcome: str = "cancelled", error: TaskError | None = None
) -> None:
    """→ CANCELLED, from any live status; `outcome` and `error` are what its attempt came to, if it has one."""
    cancellation = task.cancellation
    if cancellation is not None and cancellation.outcome is None:
        cancellation.outcome = CancelOutcome.FINISHED
    agent = task.agent
    if agent is not None:
        _end_attempt(task, outcome, at, error)
        if outcome == "given_up" and task.status is TaskStatus.RUNNING and not (task.current and task.current.waiting):
            agent.occupied += task.terms.requirement.slots  # until its next heartbeat says how it is
    _finish(board, task, TaskStatus.CANCELLED, reason or None, at, 0.0)


def fail(board: Board, task: TaskState, reason: FailureReason, error: TaskError | None, at: int) -> None:
    """→ FAILED for good."""
    if error is not None:
        task.error = error
    run_ms = 0.0
    current = task.current
    if current is not None:
        run_ms = 0.0 if current.started_at is None else float(max(0, at - current.started_at))
        _end_attempt(task, reason.value, at, error)
        evidence = poison(task.present_attempts)
        if evidence is not None:
            reason, task.error = FailureReason.POISON, evidence
    _finish(board, task, TaskStatus.FAILED, reason.value, at, run_ms)


def requeue(
    board: Board, task: TaskState, outcome: str, at: int, *, error: TaskError | None = None, not_before: int = 0
) -> None:
    """→ PENDING: its attempt is over, whatever came of it; another may follow from `not_before` on."""
    if task.cancellation is not None:
        end_cancelled(board, task, task.cancellation, outcome, error, at)
        return
    _end_attempt(task, outcome, at, error)
    evidence = poison(task.present_attempts)
    if evidence is not None:
        task.error = evidence
        _finish(board, task, TaskStatus.FAILED, FailureReason.POISON.value, at, 0.0)
        return
    _leave(board, task)
    _move(task, TaskStatus.PENDING)
    task.current = None
    task.not_before = not_before
    board.touch(task)
    board.tell(task, reason=outcome)
    board.draft.retried.append((task.terms.requirement.capability, outcome))
    expires_at = task.expires_at
    if expires_at is not None and expires_at <= board.now and not task.begun:
        expire(board, task, f"its last attempt was {outcome}")
    else:
        wait(board, task)


def revive(board: Board, task: TaskState, why: str) -> None:
    """FAILED → PENDING: an operator requeues a dead letter. Nothing else may call this."""
    if not task_may_be_revived(task.status, TaskStatus.PENDING):
        raise IllegalTransitionError(task, TaskStatus.PENDING)
    task.status = TaskStatus.PENDING
    board.touch(task)
    board.tell(task, reason=f"requeued: {why}" if why else "requeued")
    board.draft.requeued.append(task.terms.requirement.capability)
    deadlines.arm_expiry(board, task)
    wait(board, task)


def end_cancelled(
    board: Board, task: TaskState, cancellation: Cancellation, outcome: str, error: TaskError | None, at: int
) -> None:
    """→ CANCELLED: the attempt ended in another way while its cancel was under way, and none follows."""
    if outcome == FailureReason.AGENT_LOST.value:
        cancellation.outcome = CancelOutcome.GIVEN_UP
    cancel(board, task, cancellation.reason, at, outcome=outcome, error=error)


def wait(board: Board, task: TaskState) -> None:
    """Put a PENDING task into its class's line, or under a timer until it may start."""
    if task.terms.fail_fast:
        fail_fast.watch(board, task)
    if task.not_before > board.now:
        board.clock_timers.set(task.not_before, TimerKind.READY, task.id, task.attempt)
        return
    board.enqueue(task)


def expire(board: Board, task: TaskState, why: str) -> None:
    """→ FAILED: nobody began it within its queue_timeout."""
    error = TaskError(type="QueueTimeout", message=f"no agent took it within its queue_timeout: {why}")
    fail(board, task, FailureReason.EXPIRED, error, board.now)


def resume(board: Board, task: TaskState, agent: AgentState) -> None:
    """Take over an ASSIGNED or RUNNING task that `agent` has, as the ledger tells."""
    current = task.current
    assert current is not None, "a task in an agent's hands has an attempt"  # noqa: S101 - an invariant
    estimate = board.fleet.estimate(task.terms.requirement.capability, task.terms.estimate_ms)
    _enter(board, task, current, agent, board.fleet.class_of(task.terms), estimate)
    if task.status is TaskStatus.RUNNING:
        current.heard_at = board.now
        deadlines.arm_timeouts(board, task, current)
    elif agent.free < 0:
        board.watch(agent)


def move_to(board: Board, task: TaskState, agent: AgentState) -> None:
    """Let `agent`, a new life with the same id, have what the earlier one had."""
    current = task.current
    assert current is not None, "a task in an agent's hands has an attempt"  # noqa: S101 - an invariant
    if not current.waiting:
        room.unshare(board, task, current)
    current.agent = agent
    _enter(board, task, current, agent, board.fleet.class_of(task.terms), current.load_ms)
    if agent.free < 0:
        board.watch(agent)


def withdraw(board: Board, task: TaskState) -> None:
    """Take a live task out of everything without a word: the ledger has already seen its end."""
    board.order.leave(task)
    _leave(board, task)
    board.schedules.ended(task.id)
    board.drop(task)


def _since(current: Attempt | None, at: int) -> int:
    """Return `at`, or when the attempt began if that is later.

    What agents and clients say has the instant of their writing: an assignment has that of the leader's pass, which may
    be a moment ahead of the server, or come after what was written and not yet read (a cancel). Nothing ends before it
    began.
    """
    return at if current is None else max(at, current.started_at or current.assigned_at)


def _end_attempt(task: TaskState, outcome: str, at: int, error: TaskError | None) -> None:
    current = task.current
    if current is None or current.agent is None:
        return
    record = AttemptRecord(
        attempt=task.attempt,
        agent_id=current.agent.id,
        assigned_at=current.assigned_at,
        started_at=current.started_at,
        ended_at=_since(current, at),
        outcome=outcome,
        error=error,
    )
    task.attempts = (*task.attempts[1 - KEPT_ATTEMPTS :], record)


def _enter(
    board: Board,
    task: TaskState,
    current: Attempt,
    agent: AgentState,
    cls: RequirementClass,
    estimate_ms: float | None,
) -> None:
    """Let the task take its room in the agent."""
    current.load_ms = UNKNOWN_LOAD_MS if estimate_ms is None else max(estimate_ms, 0.01)
    agent.tasks[task.id] = task
    if agent.status is AgentStatus.IDLE:
        board.set_agent(agent, AgentStatus.RUNNING)
    room.take(board, task, current, agent, cls)


def _leave(board: Board, task: TaskState) -> None:
    """Return what the task took of its agent."""
    current = task.current
    if current is None or current.agent is None:
        return
    agent = current.agent
    del agent.tasks[task.id]
    room.give(board, task, current, agent)
    if not agent.tasks and agent.status is AgentStatus.RUNNING:
        board.set_agent(agent, AgentStatus.IDLE)
    current.agent = None
    if agent.breakers:
        breaker.left(board, agent, task.terms.requirement.capability, task.id)


def _finish(board: Board, task: TaskState, status: TaskStatus, reason: str | None, at: int, run_ms: float) -> None:
    board.order.leave(task)
    _move(task, status)
    board.family.ended(task)
    task.finished_at, task.reason = _since(task.current, at), reason
    board.touch(task)
    board.tell(task, reason=reason)
    agent_id = task.agent.id if task.agent else None
    _leave(board, task)
    board.schedules.ended(task.id)
    for client in task.listeners:
        board.draft.answers.append(Answer(task.id, client, outcome_json(task, agent_id)))
    total = max(0, at - task.enqueued_at)
    if task.cancellation is not None and task.cancellation.outcome is not None:
        board.draft.cancels.append(task.cancellation.outcome.value)
    board.draft.ended.append(
        Ended(task.id, task.terms.requirement.capability, status.value, reason or "", run_ms, total)
    )
