"""What a task takes of its agent and of the pool's limits while it is there, and gives back: counted in one place.

An attempt that waits for its children may give its room up: slots, resources, its share in fairness, and its place in
limits of concurrency, for a child that shares a limit with its waiting parent would wait for ever. It takes all of that
again when it goes on, without asking: for a moment its agent may have more than its slots, as with work ahead of them.
What an earlier session of the agent has takes none of the present one's room: that is another process, or none at all.
"""

from dispatcher.core.board import Board
from dispatcher.core.fleet import RequirementClass
from dispatcher.core.model import AgentState, Attempt, TaskState


def take(board: Board, task: TaskState, current: Attempt, agent: AgentState, cls: RequirementClass) -> None:
    """Let an attempt take its room in `agent`, unless it waits without it or is an earlier session's."""
    if not current.waiting:
        if current.session == agent.session:
            requirement = task.terms.requirement
            agent.used += requirement.slots
            agent.load_ms += current.load_ms
            for name, much in requirement.resources:
                agent.granted[name] = agent.granted.get(name, 0) + much
        share(board, task, current, cls)
    board.fleet.levels.refresh(agent)


def share(board: Board, task: TaskState, current: Attempt, cls: RequirementClass) -> None:
    """Let an attempt count for its fairness key and its limits."""
    board.order.hold(task)
    current.gates = cls.gates
    if current.gates:
        board.limits.hold(current.gates)


def unshare(board: Board, task: TaskState, current: Attempt) -> None:
    """Let it count for them no more."""
    board.order.release(task)
    if current.gates:
        board.reopen(board.limits.release(current.gates))
        current.gates = ()


def give(board: Board, task: TaskState, current: Attempt, agent: AgentState) -> None:
    """Return what an attempt has of `agent`; nothing if it waits without it."""
    requirement = task.terms.requirement
    if not current.waiting:
        if current.session == agent.session:
            agent.used -= requirement.slots
            agent.load_ms = agent.load_ms - current.load_ms if agent.tasks else 0.0
            for name, much in requirement.resources:
                agent.granted[name] -= much
        unshare(board, task, current)
    board.fleet.levels.ease(agent)
    if requirement.resources:
        board.fleet.levels.returned(agent)


def waits(board: Board, task: TaskState, current: Attempt, agent: AgentState) -> None:
    """Take the room of an attempt that waits for its children."""
    give(board, task, current, agent)
    current.waiting = True


def goes_on(board: Board, task: TaskState, current: Attempt, agent: AgentState) -> None:
    """Give an attempt its room back, whether or not there is any."""
    current.waiting = False
    take(board, task, current, agent, board.fleet.class_of(task.terms))
    if agent.free < 0:
        board.watch(agent)
