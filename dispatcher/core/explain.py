"""Why a task waits, where it would go, why it is where it is: by the very functions that decide it.

Whether an agent is eligible is `match.failing` and `AgentState.could_fit`, whether it takes work is `AgentState.open`,
whether it has room is `AgentState.fits`, whether a limit holds the task up is `Limits.closed`, and who would get it is
`Fleet.choose`. Nothing is decided here; a look costs as much as the pool has agents.
"""

from collections import Counter

from bus.explanations import AgentGroup, Explanation, LimitWait
from bus.messages import TaskFields, TaskHeader
from bus.placement import placed_because
from bus.states import AgentHealth, AgentStatus, TaskStatus
from dispatcher.core import cancellation, fail_fast
from dispatcher.core.ahead import Ahead, ahead_of
from dispatcher.core.board import Board
from dispatcher.core.breaker import BreakerState
from dispatcher.core.limits import Closed
from dispatcher.core.match import failing, refusal, shortage
from dispatcher.core.model import AgentState, TaskState
from dispatcher.core.terms import MILLI, Requirement, Terms
from dispatcher.core.waiting import IMPOSSIBLE, in_words

FREE = "free"
RESERVED = "kept free for a wider task that is ahead"
SHUT_OFF = "shut off after failures"
GROUPS = 8
"""Most groups that the text names; the answer has them all."""


def explain(board: Board, task: TaskState) -> Explanation:
    """Explain a live task."""
    current = task.current
    if current is not None and current.agent is not None:
        agent = current.agent
        verb = "runs on" if task.status is TaskStatus.RUNNING else "is assigned to"
        why = placed_because(current.why, task.terms.requirement.preferences, board.sticky.wanted.get(task.id))
        text = f"{verb} {agent.id} since {_seconds(board.now - current.assigned_at)}: {why}"
        if current.waiting:
            text += f"; waits for its children, {board.family.live(task.id)} live, without its slots"
        if (cancel := cancellation.explain(task, board.now)) is not None:
            text = f"{text}; {cancel}"
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
    cls = fleet.class_of(terms)
    closed = board.limits.closed(cls.gates, board.now)
    barred = board.reservations.barred(cls, board.now - terms.head_start_ms if task is None else task.score)
    groups = Counter(
        RESERVED if barred >> agent.index & 1 and why == FREE else why
        for agent in fleet.agents.values()
        for why in (obstacle(agent, terms),)
    )
    came = board.now if task is None else task.enqueued_at
    waits = task is None or task.line is not None
    ahead, exact = ahead_of(board.order, cls, terms, came, task) if waits else Ahead(0, exact=True)
    chosen = fleet.choose(cls, None, board.rng, barred=barred) if closed is None else None
    limit = None if closed is None else LimitWait(key=closed.key, frees_in=_frees_in(closed, board.now))
    able = fail_fast.able(board, cls)
    nearest = None if able else fail_fast.nearest(board, terms)
    parts = [] if able else [IMPOSSIBLE]
    parts.append(_count(len(fleet.agents), "agent"))
    parts += [_said(number, why) for why, number in groups.most_common(GROUPS)]
    if SHUT_OFF in groups:
        parts.append(_next_probe(board, terms.requirement.capability))
    if nearest is not None:
        parts.append(fail_fast.in_words(nearest))
    if closed is not None:
        parts.append(in_words(closed, board.now))
    if (kept := board.reservations.of(cls)) is not None:
        parts.append(f"{kept.id} is kept free for the first of its kind")
    if starts_in is not None:
        parts.append(f"it may not start for another {starts_in:.1f} s")
    if task is not None and (hold_up := _parents_hold(board, task)) is not None:
        parts.append(hold_up)
    if ahead:
        parts.append(f"{'' if exact else 'about '}{_count(ahead, 'task')} {'is' if ahead == 1 else 'are'} ahead")
    if task is None:
        otherwise = "would fail at once" if terms.fail_fast and not able else "would wait"
        parts.append(f"would go to {chosen.id} now" if chosen is not None else otherwise)
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


def _parents_hold(board: Board, task: TaskState) -> str | None:
    """Say that the task's own parent has slots that it might be waiting for; None if it has none."""
    parent = None if task.kin is None or task.kin.parent is None else board.live(task.kin.parent)
    current = None if parent is None else parent.current
    if parent is None or current is None or current.agent is None:
        return None
    if current.waiting:
        if current.agent.status is not AgentStatus.DRAINING:
            return None
        return (
            f"its parent {parent.id} waits for it on {current.agent.id}, which drains until that has ended: "
            "another agent must take this one, or the drain needs a deadline"
        )
    slots = _count(parent.terms.requirement.slots, "slot")
    return (
        f"its parent {parent.id} keeps {slots} of {current.agent.id}: if it waits for this task, "
        "`release_slot=True` or `ctx.without_slot()` gives them up"
    )


def obstacle(agent: AgentState, terms: Terms) -> str:
    """Return in words what keeps the agent from taking a task now, the weightiest only; `free` if nothing does."""
    requirement = terms.requirement
    lacking = failing(agent, requirement) or shortage(agent, requirement)
    if lacking:
        return lacking[0]
    if (refused := refusal(agent.accepts, terms.facts)) is not None:
        return refused
    if agent.status is AgentStatus.STOPPED:
        return "stopped"
    if requirement.capability in agent.shut:
        return SHUT_OFF
    return _room(agent, requirement) if agent.open else _shut(agent)


def _room(agent: AgentState, requirement: Requirement) -> str:
    if agent.fits(requirement):
        return FREE
    if agent.free >= requirement.slots:
        return "short of a resource"
    stuck = f", {agent.occupied} held by code that does not stop" if agent.occupied else ""
    return f"full ({agent.used}/{agent.slots} slots{stuck})"


def _shut(agent: AgentState) -> str:
    if agent.pause is not None and agent.health is not AgentHealth.LOST:
        return agent.pause.words
    if agent.health is not AgentHealth.HEALTHY:
        return agent.health.value
    if agent.throttled:
        return "at its own rate limit"
    if agent.status is AgentStatus.DRAINING:
        return "draining"
    return f"in {agent.status}"


def _said(number: int, why: str) -> str:
    """Say what keeps so many agents from it."""
    if number > 1:
        verb, _, rest = why.partition(" ")
        why = f"{_OF_MANY.get(verb, verb)} {rest}".rstrip()
    return f"{number} {why}"


_OF_MANY = {"lacks": "lack", "has": "have", "is": "are", "does": "do", "accepts": "accept"}


def _next_probe(board: Board, capability: str) -> str:
    """Say when the first of the agents that are shut off gets a task to try, or that one has it."""
    breakers = [agent.breakers.get(capability) for agent in board.fleet.agents.values() if capability in agent.shut]
    cooling = [one.until for one in breakers if one is not None and one.state is BreakerState.OPEN]
    return f"the next probe in {_seconds(max(0, min(cooling) - board.now))}" if cooling else "a probe runs"


def _frees_in(closed: Closed, now: int) -> float | None:
    return None if closed.until is None else (closed.until - now) / MILLI


def _seconds(ms: int) -> str:
    return f"{ms / MILLI:.1f} s"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"
