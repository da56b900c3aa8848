"""Why a task waits, where it would go, why it is where it is: by the very functions that decide it.

Whether an agent is eligible is `match.failing` and `AgentState.could_fit`, whether it takes work is `AgentState.open`,
whether it has room is `AgentState.fits`, whether a limit holds the task up is `Limits.closed`, and who would get it is
`Fleet.choose`. Nothing is decided here; a look costs as much as the pool has agents.
"""

from collections import Counter

from bus.explanations import AgentGroup, Explanation, LimitWait, NearestMiss
from bus.messages import TaskFields, TaskHeader
from bus.states import AgentHealth, AgentStatus, TaskStatus
from dispatcher.core.board import Board
from dispatcher.core.limits import Closed
from dispatcher.core.match import accepts, failing
from dispatcher.core.model import AgentState, TaskState
from dispatcher.core.terms import MILLI, Requirement, Terms

FREE = "free"
GROUPS = 8
"""Most groups that the text names; the answer has them all."""


def explain(board: Board, task: TaskState) -> Explanation:
    """Explain a live task."""
    current = task.current
    if current is not None and current.agent is not None:
        agent = current.agent
        verb = "runs on" if task.status is TaskStatus.RUNNING else "is assigned to"
        text = f"{verb} {agent.id} since {_seconds(board.now - current.assigned_at)}: {current.why}"
        fleet = board.fleet
        return Explanation(
            task_id=task.id,
            status=task.status,
            text=text,
            agents=len(fleet.agents),
            eligible=fleet.class_of(task.terms).mask.bit_count(),
            agent_id=agent.id,
        )
    waits = (task.not_before - board.now) / MILLI if task.not_before > board.now else None
    return _look(board, task.terms, task=task, starts_in=waits)


def plan(board: Board, fields: TaskFields) -> Explanation:
    """Explain a task that does not exist: what would become of it if it were submitted now."""
    return _look(board, board.terms.of(TaskHeader.model_validate(fields.model_dump())), task=None, starts_in=None)


def _look(board: Board, terms: Terms, *, task: TaskState | None, starts_in: float | None) -> Explanation:
    fleet = board.fleet
    requirement, cls = terms.requirement, fleet.class_of(terms)
    closed = board.limits.closed(cls.gates, board.now)
    groups = Counter(obstacle(agent, terms) for agent in fleet.agents.values())
    ahead = 0 if task is None else board.order.ahead_of(task)
    chosen = fleet.choose(cls, None, board.rng) if closed is None else None
    limit = None if closed is None else LimitWait(key=closed.key, frees_in=_frees_in(closed, board.now))
    nearest = None if cls.mask else _nearest(board, requirement)
    parts = [f"{_count(len(fleet.agents), 'agent')}"]
    parts += [f"{number} {why}" for why, number in groups.most_common(GROUPS)]
    if nearest is not None:
        parts.append(f"nearest is {nearest.agent_id}, which {' and '.join(nearest.lacks)}")
    if limit is not None:
        when = "when one of its tasks ends" if limit.frees_in is None else f"in {limit.frees_in:.1f} s"
        parts.append(f"limit {limit.key!r} frees {when}")
    if starts_in is not None:
        parts.append(f"it may not start for another {starts_in:.1f} s")
    if ahead:
        parts.append(f"{_count(ahead, 'task')} {'is' if ahead == 1 else 'are'} ahead")
    if task is None:
        parts.append(f"would go to {chosen.id} now" if chosen is not None else "would wait")
    return Explanation(
        task_id=None if task is None else task.id,
        status=None if task is None else task.status,
        text="; ".join(parts),
        agents=len(fleet.agents),
        eligible=cls.mask.bit_count(),
        groups=tuple(AgentGroup(count=number, why=why) for why, number in groups.most_common()),
        nearest=nearest,
        limit=limit,
        starts_in=starts_in,
        ahead=ahead,
        agent_id=None if chosen is None or task is not None else chosen.id,
    )


def obstacle(agent: AgentState, terms: Terms) -> str:
    """Return in words what keeps the agent from taking a task now, the weightiest only; `free` if nothing does."""
    requirement = terms.requirement
    lacking = failing(agent, requirement)
    if lacking:
        return lacking[0]
    if not agent.could_fit(requirement):
        return "too small for it"
    if not accepts(agent.accepts, terms.facts):
        return "does not accept it"
    if requirement.capability in agent.shut:
        return "shut off after failures"
    return _room(agent, requirement) if agent.open else _shut(agent)


def _room(agent: AgentState, requirement: Requirement) -> str:
    if agent.fits(requirement):
        return FREE
    return f"full ({agent.used}/{agent.slots} slots)" if agent.free < requirement.slots else "short of a resource"


def _shut(agent: AgentState) -> str:
    if agent.pause is not None and agent.health is not AgentHealth.LOST:
        return agent.pause.words
    if agent.health is not AgentHealth.HEALTHY:
        return agent.health.value
    if agent.throttled:
        return "at its own rate limit"
    if agent.status in (AgentStatus.DRAINING, AgentStatus.STOPPED):
        return agent.status.value.lower()
    return f"in {agent.status}"


def _nearest(board: Board, requirement: Requirement) -> NearestMiss | None:
    misses = [(len(lacks), agent_id, lacks) for agent_id, lacks in _misses(board, requirement)]
    if not misses:
        return None
    _, agent_id, lacks = min(misses)
    return NearestMiss(agent_id=agent_id, lacks=tuple(lacks))


def _misses(board: Board, requirement: Requirement) -> list[tuple[str, list[str]]]:
    found = []
    for agent in board.fleet.agents.values():
        lacks = failing(agent, requirement)
        if not agent.could_fit(requirement):
            lacks = [*lacks, "is too small for it"]
        if lacks:
            found.append((agent.id, lacks))
    return found


def _frees_in(closed: Closed, now: int) -> float | None:
    return None if closed.until is None else (closed.until - now) / MILLI


def _seconds(ms: int) -> str:
    return f"{ms / MILLI:.1f} s"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"
