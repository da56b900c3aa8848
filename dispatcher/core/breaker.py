"""Circuit breakers: an agent at which one capability fails again and again gets no more of it, until a probe succeeds.

One breaker per agent and capability (M. Nygard, "Release It!", 2007): *closed* until so many attempts in a row have
failed; then *open* for a cool-down, in which its agent is not eligible; then *half open*: one task, the probe. If that
succeeds the breaker is closed, if not it is open again, for twice as long. What is the task's own fault (a bad
payload), or nobody's (a lost agent, a cancel), does not count. An agent all of whose capabilities are shut off is in
ERROR.
"""

from dataclasses import dataclass
from enum import StrEnum

from pydantic_core import from_json, to_json

from bus.states import AgentStatus, FailureReason
from dispatcher.core.board import Board
from dispatcher.core.decisions import Note, NoteKind
from dispatcher.core.model import AgentState
from dispatcher.core.timers import TimerKind

COUNTED = frozenset({FailureReason.ERROR, FailureReason.TIMEOUT})
TRIPPED = "every attempt of late has failed"


class BreakerState(StrEnum):
    """Where a breaker stands."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(slots=True, eq=False)
class Breaker:
    """The breaker of one capability at one agent."""

    failures: int = 0
    """In a row."""
    state: BreakerState = BreakerState.CLOSED
    until: int = 0
    cooldown_ms: int = 0
    probe: str = ""
    """The task that is let through."""


def failed(board: Board, agent: AgentState, capability: str, reason: FailureReason) -> None:
    """Count a failed attempt."""
    if reason not in COUNTED or not board.config.breaker_failures:
        return
    config = board.config
    breaker = agent.breakers.setdefault(capability, Breaker())
    breaker.failures += 1
    if breaker.state is BreakerState.HALF_OPEN:
        _open(board, agent, capability, breaker, min(2 * breaker.cooldown_ms, config.breaker_cap_ms))
    elif breaker.state is BreakerState.CLOSED and breaker.failures >= config.breaker_failures:
        _open(board, agent, capability, breaker, config.breaker_cooldown_ms)


def succeeded(board: Board, agent: AgentState, capability: str) -> None:
    """Close the breaker: the capability works."""
    breaker = agent.breakers.pop(capability, None)
    if breaker is not None and breaker.state is not BreakerState.CLOSED:
        board.draft.notes.append(Note(NoteKind.BREAKER, f"{agent.id} {capability}", None))
        board.fleet.admit(agent, capability)
        if agent.status is AgentStatus.ERROR and agent.reason == TRIPPED:
            board.set_agent(agent, AgentStatus.RUNNING if agent.tasks else AgentStatus.IDLE)
            board.fleet.levels.refresh(agent)
        board.touch_agent(agent)


def placed(board: Board, agent: AgentState, capability: str, task_id: str) -> None:
    """Give nothing more while the probe runs."""
    breaker = agent.breakers.get(capability)
    if breaker is not None and breaker.state is BreakerState.HALF_OPEN:
        breaker.probe = task_id
        board.fleet.exclude(agent, capability)


def cooled_down(board: Board, agent_id: str, capability: str) -> None:
    """Let one task through."""
    agent = board.fleet.agents.get(agent_id)
    breaker = None if agent is None else agent.breakers.get(capability)
    if agent is None or breaker is None or breaker.state is not BreakerState.OPEN or breaker.until > board.now:
        return
    breaker.state = BreakerState.HALF_OPEN
    if agent.status is AgentStatus.ERROR and agent.reason == TRIPPED:
        board.set_agent(agent, AgentStatus.RUNNING if agent.tasks else AgentStatus.IDLE)
    board.fleet.admit(agent, capability)
    board.fleet.levels.refresh(agent)


def restore(board: Board, field: str, value: bytes) -> None:
    """Take over a breaker that is not closed; its cool-down goes on."""
    agent_id, _, capability = field.partition(" ")
    agent = board.fleet.agents.get(agent_id)
    if agent is None:
        board.draft.notes.append(Note(NoteKind.BREAKER, field, None))
        return
    said = from_json(value)
    until, cooldown_ms = int(said["until"]), int(said["cooldown_ms"])
    breaker = Breaker(board.config.breaker_failures, BreakerState.OPEN, until, cooldown_ms)
    agent.breakers[capability] = breaker
    board.fleet.exclude(agent, capability)
    board.clock_timers.set(breaker.until, TimerKind.BREAKER, field)


def forget(board: Board, agent: AgentState) -> None:
    """Drop the breakers of a session that is over: the next begins afresh."""
    for capability, breaker in agent.breakers.items():
        if breaker.state is not BreakerState.CLOSED:
            board.draft.notes.append(Note(NoteKind.BREAKER, f"{agent.id} {capability}", None))


def _open(board: Board, agent: AgentState, capability: str, breaker: Breaker, cooldown_ms: int) -> None:
    breaker.state, breaker.cooldown_ms = BreakerState.OPEN, cooldown_ms
    breaker.until = board.now + cooldown_ms
    field = f"{agent.id} {capability}"
    value = to_json({"until": breaker.until, "cooldown_ms": cooldown_ms})
    board.draft.notes.append(Note(NoteKind.BREAKER, field, value))
    board.clock_timers.set(breaker.until, TimerKind.BREAKER, field)
    board.fleet.exclude(agent, capability)
    judge(board, agent)
    board.touch_agent(agent)


def judge(board: Board, agent: AgentState) -> None:
    """Let an agent be in ERROR all of whose capabilities are shut off."""
    shut = {name for name, one in agent.breakers.items() if one.state is BreakerState.OPEN}
    if shut >= {spec.name for spec in agent.capabilities} and agent.status in (AgentStatus.IDLE, AgentStatus.RUNNING):
        board.set_agent(agent, AgentStatus.ERROR, TRIPPED)
        board.fleet.levels.refresh(agent)


def left(board: Board, agent: AgentState, capability: str, task_id: str) -> None:
    """Let another probe through if this one told nothing: cancelled, handed back, lost, or wrong itself."""
    breaker = agent.breakers.get(capability)
    if breaker is not None and breaker.state is BreakerState.HALF_OPEN and breaker.probe == task_id:
        board.fleet.admit(agent, capability)
