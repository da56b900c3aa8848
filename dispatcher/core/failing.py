"""What becomes of a task whose attempt has failed: another one, after a while perhaps, or the end."""

from bus.messages import TaskError
from bus.retries import RetryPolicy
from bus.states import FailureReason
from dispatcher.core import breaker, lifecycle
from dispatcher.core.board import Board
from dispatcher.core.match import find_capability
from dispatcher.core.model import AgentState, TaskState
from dispatcher.core.retry import backoff_ms, forbids


def attempt_failed(
    board: Board,
    task: TaskState,
    reason: FailureReason,
    error: TaskError | None,
    at: int,
    *,
    retryable: bool = True,
    retry_after: int | None = None,
) -> None:
    """End a failed attempt: try again after a backoff, or move to FAILED when it is not worth it or no attempt is left.

    `retry_after` (ms) is the agent's own word on when to try again.
    """
    if task.cancellation is not None:  # it was told to stop: however it does, that is no fault of its agent
        lifecycle.end_cancelled(board, task, task.cancellation, reason.value, error, at)
        return
    task.failures += 1
    agent = task.agent
    if agent is not None:
        agent.failed += 1
        agent.tally(task.terms.requirement.capability).failed += 1
        agent.ended(well=False)
        breaker.failed(board, agent, task.terms.requirement.capability, reason)
    policy = _policy(board, task, agent)
    if not retryable or task.failures >= task.terms.max_attempts or forbids(policy, error):
        lifecycle.fail(board, task, reason, error, at)
        return
    if retry_after is not None:
        wait = retry_after
    else:
        wait = 0 if reason is FailureReason.AGENT_LOST else backoff_ms(policy, task.failures, board.rng)
    if error is not None:
        task.error = error
    lifecycle.requeue(board, task, reason.value, at, error=error, not_before=board.now + wait if wait else 0)


def _policy(board: Board, task: TaskState, agent: AgentState | None) -> RetryPolicy:
    """Return how the task is repeated: as it says itself, else as its capability does, else as the pool does."""
    if task.terms.retry is not None:
        return task.terms.retry
    if agent is not None and agent.retries:
        capability = find_capability(agent, task.terms.requirement)
        if capability is not None and capability.retry is not None:
            return capability.retry
    return board.config.retry
