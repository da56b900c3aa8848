"""Taking back what an agent has and has not begun: another could begin it now, or something more urgent is to be next.

An agent is given short work ahead of its slots. If that turns out to wait, behind a task that takes longer than it used
to, behind a thread that does not stop, behind a blocked event loop, it is recalled. What is more urgent and short goes
before it in the agent's own heap; what is not short waits for a slot, which those ahead of the slots would take first:
they go back, and wait in their order again. Recall has two phases: a recalled task stays ASSIGNED until the agent hands
it back or reports that it has begun, so it is never in two hands. Only of an agent whose loop is blocked for long it is
taken without an answer, which the fence of the attempt makes safe.
"""

from bus.messages import CancelAttempt, Control, RecallAttempt
from bus.states import AgentHealth, TaskStatus
from dispatcher.core import lifecycle
from dispatcher.core.board import Board
from dispatcher.core.model import AgentState, TaskState, session_of


def look(board: Board, agent_id: str) -> None:
    """Recall what waits in an agent for longer than it should; go on looking while anything may wait there."""
    agent = board.fleet.agents.get(agent_id)
    if agent is None:
        return
    agent.watched = False
    blocked = agent.health is AgentHealth.BLOCKED
    if agent.free >= 0 and not blocked:
        return
    board.watch(agent)
    config, now = board.config, board.now
    if blocked:
        if agent.blocked_since is not None and now - agent.blocked_since >= config.blocked_patience_ms:
            for task in _unbegun(agent):
                stop = CancelAttempt(
                    session=agent.session, task_id=task.id, attempt=task.attempt, reason="the event loop was blocked"
                )
                board.instruct(agent.id, Control(stop))
                lifecycle.requeue(board, task, "taken_back", now)
        return
    excess = -agent.free
    first = board.order.first_for(agent)
    for task in _unbegun(agent):
        current = task.current
        if excess <= 0 or current is None or now - current.assigned_at < config.recall_after_ms:
            break
        excess -= task.terms.requirement.slots
        if not current.recalled and (task.score > first or _somebody_else(board, task)):
            current.recalled = True
            message = RecallAttempt(session=agent.session, task_id=task.id, attempt=task.attempt)
            board.instruct(agent.id, Control(message))


def _unbegun(agent: AgentState) -> list[TaskState]:
    """Return what the agent's session has and has not begun, what it would begin last first."""
    unbegun = [
        task
        for task in agent.tasks.values()
        if task.status is TaskStatus.ASSIGNED and session_of(task) == agent.session
    ]
    return sorted(unbegun, key=lambda task: task.score, reverse=True)


def _somebody_else(board: Board, task: TaskState) -> bool:
    fleet = board.fleet
    return fleet.choose(fleet.class_of(task.terms), None, board.rng) is not None
