"""What operators ask of agents: pause, resume, drain, restart, update; and whether the agents do it.

A request is part of the agent's record, so the next leader knows it. It has a number; heartbeats say up to which number
the agent heeds what it was told, and whatever they show it not to know is told again: a control entry may be lost, and
so may a leader between the request and its confirmation. Telling twice is harmless, for an agent leaves out what is not
newer than the last it has heeded.

That a paused or draining agent gets nothing new does not depend on the agent: it is not `open` from the very pass that
takes the request. A drain ends by a resume only when the agent has said so, for it hands back whatever comes before.
"""

from typing import Final

from bus.agent_requests import (
    RESTART_MS,
    WRAP_UP_MS,
    AgentRequest,
    Pause,
    RequestKind,
)
from bus.messages import (
    AgentCommand,
    CapabilitySpec,
    ChangeOffer,
    Control,
    Heartbeat,
    Instruction,
    RecallAttempt,
    Register,
    UpdateAgent,
)
from bus.overrides import Overrides
from bus.states import AgentHealth, AgentStatus, TaskStatus
from dispatcher.core.board import Board
from dispatcher.core.decisions import AgentTransition
from dispatcher.core.model import AgentState
from dispatcher.core.timers import TimerKind

AGAIN_MS: Final = 2_000
"""What an agent does not seem to know is told again at most so often."""
LEAVING: Final = frozenset({RequestKind.DRAIN, RequestKind.RESTART})
SHUTS_DOWN: Final = "its process was shutting down already: it is there again when it is started anew"
STOPPED: Final = "it has stopped: start its process"


# --- what is asked


def take(board: Board, command: AgentCommand | UpdateAgent) -> None:
    """Take an operator's command; what it replaces is forgotten. Of an agent that nobody knows nothing can be asked."""
    agent = board.fleet.agents.get(command.agent_id)
    if agent is None or not agent.capabilities:
        return
    if isinstance(command, UpdateAgent):
        _update(board, agent, command)
        return
    kind = RequestKind(command.type)
    agent.request = _request(board, agent, command, kind)
    _deadlines(board, agent, command)
    if kind is RequestKind.PAUSE:
        _pause(board, agent, command)
    elif kind is RequestKind.RESUME:
        agent.pause = None
    if agent.request.forget and agent.health is AgentHealth.LOST:
        board.set_agent(agent, AgentStatus.STOPPED, command.reason or None)
    if agent.status is AgentStatus.STOPPED:
        _settle_stopped(board, agent)
    elif kind in LEAVING and agent.health is not AgentHealth.LOST:
        board.set_agent(agent, AgentStatus.DRAINING, command.reason or f"{kind} was asked for")
    board.fleet.levels.refresh(agent)
    board.touch_agent(agent)
    if kind not in LEAVING:
        words = f"resumed{f' by {command.by}' if command.by else ''}" if agent.pause is None else agent.pause.words
        board.draft.agent_transitions.append(AgentTransition(agent.id, agent.status, agent.health, words))
    if agent.request.open:
        _tell(board, agent)


def _request(board: Board, agent: AgentState, command: AgentCommand | UpdateAgent, kind: RequestKind) -> AgentRequest:
    number = _next_number(board, agent)
    return AgentRequest(
        id=command.request or str(number),
        number=number,
        kind=kind,
        session=agent.session,
        requested_at=board.now,
        by=command.by,
        reason=command.reason,
    )


def _next_number(board: Board, agent: AgentState) -> int:
    """Return a number above all earlier ones of the agent, those of earlier leaders too: they are instants."""
    earlier = [one.number for one in (agent.request, agent.update) if one is not None]
    return max(board.now, *(number + 1 for number in earlier), 1)


def _deadlines(board: Board, agent: AgentState, command: AgentCommand) -> None:
    request = agent.request
    assert request is not None, "it was made just now"  # noqa: S101 - an invariant
    if request.kind not in LEAVING:
        return
    deadline = None if command.deadline is None else board.now + int(command.deadline * 1000)
    due = None if deadline is None else deadline + WRAP_UP_MS
    if request.kind is RequestKind.RESTART:
        due = (deadline or board.now) + RESTART_MS
    forget = command.forget and request.kind is RequestKind.DRAIN
    agent.request = request.model_copy(update={"deadline": deadline, "due": due, "forget": forget})


def _pause(board: Board, agent: AgentState, command: AgentCommand) -> None:
    until = None if command.lasts is None else board.now + int(command.lasts * 1000)
    agent.pause = Pause(since=board.now, until=until, by=command.by, note=command.reason)
    arm(board, agent)


def arm(board: Board, agent: AgentState) -> None:
    """Let a pause end by itself; after a change of the leader, too."""
    if agent.pause is not None and agent.pause.until is not None:
        board.clock_timers.set(agent.pause.until, TimerKind.RESUME, agent.id)


def pause_over(board: Board, agent_id: str) -> None:
    """End a pause whose time is over; one that was prolonged goes on."""
    agent = board.fleet.agents.get(agent_id)
    pause = None if agent is None else agent.pause
    if agent is None or pause is None or pause.until is None or pause.until > board.now:
        return
    if agent.request is not None and agent.request.kind in LEAVING and agent.request.open:
        agent.pause = None  # it goes on leaving
        board.touch_agent(agent)
        return
    take(board, AgentCommand(type="resume", agent_id=agent_id, reason="the pause was to last no longer"))


def _settle_stopped(board: Board, agent: AgentState) -> None:
    """Nobody is there to be told: a pause stands for the next session, and only a restart cannot be done."""
    request = agent.request
    assert request is not None, "it was made just now"  # noqa: S101 - an invariant
    if request.kind is RequestKind.RESTART:
        agent.request = request.model_copy(update={"error": STOPPED})
    else:
        agent.request = request.model_copy(update={"done_at": board.now})
    if deleted(agent):
        board.horizon_timers.set(board.now, TimerKind.SESSION, agent.id)


def _update(board: Board, agent: AgentState, command: UpdateAgent) -> None:
    before = agent.wanted or agent.overrides or Overrides()
    wanted = before.changed(command.change)
    request = _request(board, agent, command, RequestKind.UPDATE)
    error = _impossible(agent, before, command, wanted)
    if error is not None:
        agent.update = request.model_copy(update={"error": error})
        if agent.wanted is not None:
            agent.wanted = before
    else:
        agent.update, agent.wanted = request, wanted
        _tell_offer(board, agent)
    board.touch_agent(agent)


def _impossible(agent: AgentState, before: Overrides, command: UpdateAgent, wanted: Overrides) -> str | None:
    known = {spec.name for spec in agent.capabilities} | set(before.disabled)
    unknown = [name for name in (*command.change.disable, *command.change.enable) if name not in known]
    if unknown:
        return f"it has no capability {', '.join(unknown)}: it has {', '.join(sorted(known))}"
    if not known - set(wanted.disabled):
        return "nothing would be left that it can do: pause it instead"
    return None


# --- what the agent says


def heard(board: Board, agent: AgentState, beat: Heartbeat, at: int) -> None:
    """Take from a heartbeat what the agent heeds; tell it again what it does not seem to know."""
    request = agent.request
    if request is not None and beat.obeys is not None:
        if beat.obeys >= request.number:
            if request.open and request.confirmed_at is None:
                _confirmed(board, agent, request, beat, at)
        elif (request.open or (agent.pause is not None and not beat.paused)) and at - agent.told_at >= AGAIN_MS:
            _tell(board, agent)
    update = agent.update
    if update is not None and beat.updated is not None and beat.updated < update.number:
        standing = agent.wanted is not None or agent.overrides is not None
        if standing and at - agent.told_offer_at >= AGAIN_MS:
            _tell_offer(board, agent)


def _confirmed(board: Board, agent: AgentState, request: AgentRequest, beat: Heartbeat, at: int) -> None:
    said: dict[str, object] = {"confirmed_at": at}
    if request.kind not in LEAVING:
        if agent.status is AgentStatus.DRAINING and not beat.draining:
            board.set_agent(agent, AgentStatus.RUNNING if agent.tasks else AgentStatus.IDLE)
            board.fleet.levels.refresh(agent)
        stays = agent.status is not AgentStatus.DRAINING or request.kind is RequestKind.PAUSE
        said |= {"done_at": at} if stays else {"error": SHUTS_DOWN}
    agent.request = request.model_copy(update=said)
    board.touch_agent(agent)


def leaves(agent: AgentState) -> bool:
    """Tell whether the agent is to drain or to restart, and has not done so."""
    return agent.request is not None and agent.request.open and agent.request.kind in LEAVING


def deleted(agent: AgentState) -> bool:
    """Tell whether the agent was to drain for good, and has done so; a drain is of one session."""
    request = agent.request
    if request is None or not request.forget or request.open:
        return False
    return agent.status is AgentStatus.STOPPED and request.session == agent.session


def signed_out(board: Board, agent: AgentState, at: int) -> None:
    """Take a farewell for what it means to a request: a drain is done, a restart half done."""
    request = agent.request
    if request is None or not request.open:
        return
    said = {"confirmed_at": request.confirmed_at or at}
    if request.kind is not RequestKind.RESTART:
        said["done_at"] = at
    agent.request = request.model_copy(update=said)
    board.touch_agent(agent)


def carry_over(agent: AgentState, fresh: AgentState, message: Register, at: int) -> None:
    """Let the agent's new registration know what is asked of it; `fresh` is not yet considered for placement."""
    fresh.pause, fresh.request, fresh.update = agent.pause, agent.request, agent.update
    fresh.overrides, fresh.wanted = agent.overrides, agent.wanted
    fresh.told_at, fresh.told_offer_at = agent.told_at, agent.told_offer_at
    if fresh.session == agent.session:
        if agent.status is AgentStatus.DRAINING:
            fresh.status, fresh.reason = AgentStatus.DRAINING, agent.reason
        elif leaves(agent) and agent.request is not None:  # it was lost when it was asked to
            fresh.status, fresh.reason = AgentStatus.DRAINING, agent.request.reason
    else:
        _new_session(fresh, at)
    _updated(fresh, message, at)


def _new_session(fresh: AgentState, at: int) -> None:
    fresh.told_at = fresh.told_offer_at = 0
    request = fresh.request
    if request is None or not request.open:
        return
    if request.kind is RequestKind.PAUSE:
        fresh.request = request.model_copy(update={"session": fresh.session, "confirmed_at": None})
    else:
        # Leaving was asked of a session that is over now, and who has just been started need not be resumed.
        fresh.request = request.model_copy(update={"confirmed_at": request.confirmed_at or at, "done_at": at})


def _updated(fresh: AgentState, message: Register, at: int) -> None:
    update = fresh.update
    if update is not None and message.update >= update.number:
        if fresh.wanted is not None:
            if message.update_error is None:
                fresh.overrides = fresh.wanted
            fresh.wanted = None
        if update.open:
            end = {"done_at": at} if message.update_error is None else {"error": message.update_error}
            fresh.update = update.model_copy(update={"confirmed_at": at, **end})
        return
    # What operators have disabled is not given to a new session before it has heard of it.
    disabled = (fresh.wanted or fresh.overrides or Overrides()).disabled
    left: tuple[CapabilitySpec, ...] = tuple(spec for spec in fresh.capabilities if spec.name not in disabled)
    if left:
        fresh.capabilities = left


def welcome(board: Board, agent: AgentState) -> None:
    """Tell a session that has signed in what stands and what it cannot know yet."""
    if agent.told_at == 0 and agent.request is not None and (agent.pause is not None or agent.request.open):
        _tell(board, agent)
    standing = agent.wanted is not None or agent.overrides is not None
    if agent.told_offer_at == 0 and standing and agent.update is not None:
        _tell_offer(board, agent)


# --- what the agent is told


def _tell(board: Board, agent: AgentState) -> None:
    request = agent.request
    if request is None:
        return
    agent.told_at = board.now
    # A drain or restart that is over was of an earlier session; a pause may stand all the same.
    kind = request.kind if request.open or agent.pause is None else RequestKind.PAUSE
    if kind is RequestKind.PAUSE:
        _recall(board, agent)
    within = None if request.deadline is None else max(0, request.deadline - board.now) / 1000
    instruction = Instruction.model_validate(
        {
            "type": kind.value,
            "session": agent.session,
            "number": request.number,
            "reason": request.reason,
            "within": within if kind in LEAVING else None,
        }
    )
    board.instruct(agent.id, Control(instruction))


def _recall(board: Board, agent: AgentState) -> None:
    """Ask back what it has not begun: before it is told to pause, so that its confirmation covers this, too."""
    for task in agent.tasks.values():
        current = task.current
        if task.status is TaskStatus.ASSIGNED and current is not None and current.session == agent.session:
            current.recalled = True
            message = RecallAttempt(session=agent.session, task_id=task.id, attempt=task.attempt)
            board.instruct(agent.id, Control(message))


def _tell_offer(board: Board, agent: AgentState) -> None:
    update = agent.update
    if update is not None:
        agent.told_offer_at = board.now
        overrides = agent.wanted or agent.overrides or Overrides()
        told = ChangeOffer(session=agent.session, number=update.number, overrides=overrides)
        board.instruct(agent.id, Control(told))
