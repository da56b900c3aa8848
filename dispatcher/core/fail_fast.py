"""Tasks that are to fail at once when no agent that is known could ever run them, instead of waiting for one.

An agent could run a task if its capabilities, attributes, slots and resources meet what the task asks for and it
accepts such tasks: busy, lost, draining or shut off after failures, it may come round. One that has signed out counts
for a short grace, for it may be restarting; one that is lost until it is forgotten. In the same grace after a leader's
start nothing fails, for its agents may be starting, too.

Those that wait are looked at again after an agent has gone, so many per pass, each requirement once.
"""

from collections.abc import Mapping

from bus.explanations import NearestMiss
from bus.messages import TaskError
from bus.requirements import Value
from bus.states import AgentStatus, TaskStatus
from dispatcher.core.board import Board
from dispatcher.core.fleet import RequirementClass
from dispatcher.core.match import failing, refusal, shortage
from dispatcher.core.model import AgentState, TaskState
from dispatcher.core.terms import Requirement, Terms
from dispatcher.core.timers import TimerKind
from dispatcher.core.waiting import IMPOSSIBLE


def able(board: Board, cls: RequirementClass) -> bool:
    """Tell whether any agent could ever run tasks of `cls`. Costs a look at one agent, or if there is none at all."""
    fleet = board.fleet
    return any(_there(board, agent) for agent in fleet.eligible(cls)) or any(
        cls.requirement.capability in agent.shut
        and _there(board, agent)
        and not _lacks(agent, cls.requirement, cls.eligible.facts)
        for agent in fleet.agents.values()
    )


def verdict(board: Board, task: TaskState) -> TaskError | None:
    """Return why a task is to fail fast now; None if it may wait."""
    if _in_grace(board):
        return None
    cls = board.fleet.class_of(task.terms)
    return None if able(board, cls) else _error(board, task.terms)


def watch(board: Board, task: TaskState) -> None:
    """Look after a task that waits and is to fail fast."""
    board.hasty[task.id] = None
    if task.attempt or task.requeues or _in_grace(board):
        review(board)


def review(board: Board) -> None:
    """Look at those that wait, when agents have had time to come back: one has gone, or is another now."""
    if board.hasty and not board.review_due:
        board.review_due = True
        board.clock_timers.set(board.now + board.config.fail_fast_grace_ms, TimerKind.FAIL_FAST, "")


def fallen(board: Board) -> list[tuple[TaskState, TaskError]]:
    """Return those of the next tasks to be looked at that are to fail; called when the timer rings."""
    board.review = board.review or list(board.hasty)
    limit = board.config.timers_per_pass
    part, board.review = board.review[:limit], board.review[limit:]
    board.review_due = bool(board.review)
    if board.review_due:
        board.clock_timers.set(board.now, TimerKind.FAIL_FAST, "")
    errors: dict[RequirementClass, TaskError | None] = {}
    found = []
    for task_id in part:
        task = board.live(task_id)
        if task is None or task.status is not TaskStatus.PENDING:
            board.hasty.pop(task_id, None)
            continue
        cls = board.fleet.class_of(task.terms)
        if cls not in errors:
            errors[cls] = None if able(board, cls) else _error(board, task.terms)
        error = errors[cls]
        if error is not None:
            found.append((task, error))
    return found


def nearest(board: Board, terms: Terms) -> NearestMiss | None:
    """Return the agent that lacks least of what a task asks for; None without agents, or if one lacks nothing."""
    best: tuple[int, bool, str, list[str]] | None = None
    for agent in board.fleet.agents.values():
        lacks = _lacks(agent, terms.requirement, terms.facts)
        stopped = agent.status is AgentStatus.STOPPED
        if stopped:
            lacks.append("has signed out")
        if not lacks:
            return None
        if best is None or (len(lacks), not stopped, agent.id) < best[:3]:
            best = len(lacks), not stopped, agent.id, lacks
    return None if best is None else NearestMiss(agent_id=best[2], lacks=tuple(best[3]))


def in_words(miss: NearestMiss) -> str:
    """Say who comes nearest, and what is missing."""
    return f"nearest is {miss.agent_id}, which {' and '.join(miss.lacks)}"


def _error(board: Board, terms: Terms) -> TaskError:
    miss = nearest(board, terms)
    known = len(board.fleet.agents)
    words = f"{IMPOSSIBLE} ({known} agent{'s' * (known != 1)} known)"
    return TaskError(type="NoSuchAgent", message=words if miss is None else f"{words}: {in_words(miss)}")


def _lacks(agent: AgentState, requirement: Requirement, facts: Mapping[str, Value]) -> list[str]:
    lacks = failing(agent, requirement) + shortage(agent, requirement)
    refused = refusal(agent.accepts, facts)
    return lacks if refused is None else [*lacks, refused]


def _there(board: Board, agent: AgentState) -> bool:
    return agent.status is not AgentStatus.STOPPED or board.now < agent.last_beat + board.config.fail_fast_grace_ms


def _in_grace(board: Board) -> bool:
    return board.now < board.began + board.config.fail_fast_grace_ms
