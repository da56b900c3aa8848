"""A task's life: the only place where a task's status changes.

Each function is one move of `bus.states.TASK_TRANSITIONS`; `_move` refuses any other, telling the task's history.
"""

from pydantic_core import to_json

from bus.messages import TaskError
from bus.records import AttemptRecord
from bus.states import AgentStatus, FailureReason, TaskStatus, task_may_become
from dispatcher.core.board import Board
from dispatcher.core.decisions import Answer, Ended, Placed
from dispatcher.core.fleet import UNKNOWN_LOAD_MS
from dispatcher.core.model import AgentState, TaskState
from dispatcher.core.retry import backoff_ms
from dispatcher.core.timers import TimerKind


class IllegalTransitionError(RuntimeError):
    """A move that the table does not have: a defect of the scheduler. Says what is known of the task."""

    def __init__(self, task: TaskState, after: TaskStatus) -> None:
        past = ", ".join(f"#{a.attempt} {a.outcome} on {a.agent_id}" for a in task.attempts) or "no earlier attempts"
        super().__init__(f"task {task.id}: {task.status} -> {after} (ledger has {task.stored or 'nothing'}; {past})")


def _move(task: TaskState, after: TaskStatus) -> None:
    if not task_may_become(task.status, after):
        raise IllegalTransitionError(task, after)
    task.status = after


def assign(board: Board, task: TaskState, agent: AgentState) -> None:
    """PENDING → ASSIGNED: a new attempt, on `agent`."""
    _move(task, TaskStatus.ASSIGNED)
    task.attempt += 1
    task.agent, task.session = agent, agent.session
    task.assigned_at, task.started_at = board.now, None
    task.progress = task.note = None
    task.missing_since = None
    estimate = board.fleet.estimate(task.requirement.capability, task.estimate_ms)
    task.load_ms = UNKNOWN_LOAD_MS if estimate is None else max(estimate, 0.01)
    agent.tasks[task.id] = task
    agent.load_ms += task.load_ms
    if agent.status is AgentStatus.IDLE:
        board.set_agent(agent, AgentStatus.RUNNING)
    board.fleet.refresh(agent)
    board.touch(task)
    board.tell(task)
    due = max(task.enqueued_at, task.not_before)
    board.draft.placed.append(Placed(task.id, task.requirement.capability, max(0, board.now - due)))


def start(board: Board, task: TaskState, at: int) -> None:
    """Move ASSIGNED → RUNNING: its agent has begun."""
    _move(task, TaskStatus.RUNNING)
    task.started_at = at
    if task.run_timeout_ms is not None:
        due = at + task.run_timeout_ms + board.config.timeout_grace_ms
        board.horizon_timers.set(due, TimerKind.RUN_TIMEOUT, task.id, task.attempt)
    board.touch(task)
    board.tell(task)


def complete(board: Board, task: TaskState, output: bytes, at: int, run_ms: float) -> None:
    """→ COMPLETED: the current attempt delivered its result."""
    agent = task.agent
    if task.started_at is None:
        task.started_at = max(task.assigned_at or at, at - int(run_ms))
    _end_attempt(task, "completed", at, None)
    board.fleet.learn(task.requirement.capability, run_ms)
    if agent is not None:
        agent.completed += 1
    task.output = output
    task.error = None
    _finish(board, task, TaskStatus.COMPLETED, None, at, run_ms)


def cancel(board: Board, task: TaskState, reason: str, at: int) -> None:
    """→ CANCELLED, from any live status."""
    if task.agent is not None:
        _end_attempt(task, "cancelled", at, None)
    _finish(board, task, TaskStatus.CANCELLED, reason or None, at, 0.0)


def fail(board: Board, task: TaskState, reason: FailureReason, error: TaskError | None, at: int) -> None:
    """→ FAILED for good."""
    if error is not None:
        task.error = error
    run_ms = 0.0
    if task.agent is not None:
        run_ms = at - task.started_at if task.started_at is not None else 0.0
        _end_attempt(task, reason.value, at, error)
    _finish(board, task, TaskStatus.FAILED, reason.value, at, run_ms)


def attempt_failed(
    board: Board,
    task: TaskState,
    reason: FailureReason,
    error: TaskError | None,
    at: int,
    *,
    retryable: bool = True,
) -> None:
    """End a failed attempt: try again after a backoff, or move to FAILED when no attempt is left."""
    task.failures += 1
    if task.agent is not None:
        task.agent.failed += 1
    if not retryable or task.failures >= task.max_attempts:
        fail(board, task, reason, error, at)
        return
    wait = 0 if reason is FailureReason.AGENT_LOST else backoff_ms(board.config, task.failures, board.rng)
    if error is not None:
        task.error = error
    requeue(board, task, reason.value, at, not_before=board.now + wait if wait else 0)


def requeue(board: Board, task: TaskState, outcome: str, at: int, *, not_before: int = 0) -> None:
    """→ PENDING: its attempt is over, whatever came of it; another may follow from `not_before` on."""
    _end_attempt(task, outcome, at, task.error if outcome == "error" else None)
    _leave(board, task)
    _move(task, TaskStatus.PENDING)
    task.assigned_at = task.started_at = None
    task.progress = task.note = None
    task.not_before = not_before
    board.touch(task)
    board.tell(task, reason=outcome)
    board.draft.retried.append((task.requirement.capability, outcome))
    wait(board, task)


def wait(board: Board, task: TaskState) -> None:
    """Put a PENDING task into its class's line, or under a timer until it may start."""
    if task.not_before > board.now:
        board.clock_timers.set(task.not_before, TimerKind.READY, task.id, task.attempt)
        return
    board.enqueue(task)


def resume(board: Board, task: TaskState, agent: AgentState) -> None:
    """Take over an ASSIGNED or RUNNING task that `agent` has, as the ledger tells."""
    estimate = board.fleet.estimate(task.requirement.capability, task.estimate_ms)
    task.load_ms = UNKNOWN_LOAD_MS if estimate is None else max(estimate, 0.01)
    task.agent = agent
    agent.tasks[task.id] = task
    agent.load_ms += task.load_ms
    if agent.status is AgentStatus.IDLE:
        board.set_agent(agent, AgentStatus.RUNNING)
    board.fleet.refresh(agent)
    if task.status is TaskStatus.RUNNING and task.run_timeout_ms is not None and task.started_at is not None:
        due = task.started_at + task.run_timeout_ms + board.config.timeout_grace_ms
        board.horizon_timers.set(max(due, board.now), TimerKind.RUN_TIMEOUT, task.id, task.attempt)


def withdraw(board: Board, task: TaskState) -> None:
    """Take a live task out of everything without a word: the ledger has already seen its end."""
    board.fleet.class_of(task.requirement).line.discard(task)
    _leave(board, task)
    board.drop(task)


def outcome_json(task: TaskState, agent_id: str | None) -> bytes:
    """Return the JSON of `bus.messages.Outcome`, with the output's bytes as the agent's report had them."""
    head = {
        "task_id": task.id,
        "status": task.status.value,
        "attempt": task.attempt,
        "agent_id": agent_id,
        "error": task.error,
        "reason": task.reason,
    }
    text = to_json(head, exclude_none=True, inf_nan_mode="constants")
    return text if task.output is None else text[:-1] + b',"output":' + task.output + b"}"


def _end_attempt(task: TaskState, outcome: str, at: int, error: TaskError | None) -> None:
    if task.agent is None:
        return
    record = AttemptRecord(
        attempt=task.attempt,
        agent_id=task.agent.id,
        assigned_at=task.assigned_at or at,
        started_at=task.started_at,
        ended_at=at,
        outcome=outcome,
        error=error,
    )
    task.attempts = (*task.attempts, record)


def _leave(board: Board, task: TaskState) -> None:
    agent = task.agent
    if agent is None:
        return
    agent.tasks.pop(task.id, None)
    agent.load_ms = agent.load_ms - task.load_ms if agent.tasks else 0.0
    if not agent.tasks and agent.status is AgentStatus.RUNNING:
        board.set_agent(agent, AgentStatus.IDLE)
    task.agent, task.session = None, ""
    board.fleet.refresh(agent)


def _finish(board: Board, task: TaskState, status: TaskStatus, reason: str | None, at: int, run_ms: float) -> None:
    if task.status is TaskStatus.PENDING:
        board.fleet.class_of(task.requirement).line.discard(task)
    _move(task, status)
    task.finished_at, task.reason = at, reason
    board.touch(task)
    board.tell(task, reason=reason)
    agent_id = task.agent.id if task.agent else None
    _leave(board, task)
    for client in task.watchers:
        board.draft.answers.append(Answer(task.id, client, outcome_json(task, agent_id)))
    total = max(0, at - task.enqueued_at)
    board.draft.ended.append(Ended(task.id, task.requirement.capability, status.value, reason or "", run_ms, total))
