"""An agent's life: signing in and out, heartbeats, being lost and coming back.

Whatever takes tasks away from an agent waits for the horizon (see `events.Horizon`): only then is it certain that no
report of it lies unread.
"""

from bus.messages import (
    CancelAttempt,
    Control,
    Heartbeat,
    Instruction,
    Register,
    Registered,
    Reregister,
    Superseded,
    Unregister,
)
from bus.states import AgentHealth, AgentStatus, FailureReason, TaskStatus
from dispatcher.core import lifecycle
from dispatcher.core.board import Board
from dispatcher.core.model import AgentState, TaskState
from dispatcher.core.timers import TimerKind

RETIRED_SESSIONS = 16
MISSED_DELIVERY_MS = 2_000


def sign_in(board: Board, message: Register, at: int) -> None:
    """Take a registration: a new agent, the same session again (its capabilities may have changed), or a new session.

    A session that was replaced may not come back: of two processes with one id the later to sign in wins, and the
    earlier is told to stop even if it signs in again.
    """
    agent = board.fleet.agents.get(message.agent_id)
    if agent is not None and message.session in agent.retired:
        note = Superseded(session=message.session, by=agent.session)
        board.instruct(agent.id, Control(note))
        return
    tasks: list[TaskState] = []
    retired: tuple[str, ...] = ()
    if agent is not None:
        tasks, retired = _replace(board, agent, message.session)
    fresh = AgentState(
        id=message.agent_id,
        session=message.session,
        capabilities=message.capabilities,
        slots=message.slots,
        registered_at=at,
        lease_ms=int(message.lease * 1000),
        attributes=dict(message.attributes),
        accepts=message.accepts,
        metadata=dict(message.metadata),
        heartbeat_interval=message.heartbeat_interval,
        retired=retired,
        last_beat=at,
    )
    if agent is not None and agent.session == message.session:
        fresh.completed, fresh.failed = agent.completed, agent.failed
        if agent.status is AgentStatus.DRAINING:
            fresh.status = AgentStatus.DRAINING
    board.fleet.add(fresh)
    _hand_over(board, fresh, tasks)
    board.horizon_timers.set(at + fresh.lease_ms, TimerKind.LEASE, fresh.id)
    board.touch_agent(fresh)
    board.announce(fresh)
    board.instruct(fresh.id, Control(Registered(session=fresh.session)))


def _replace(board: Board, agent: AgentState, session: str) -> tuple[list[TaskState], tuple[str, ...]]:
    tasks = list(agent.tasks.values())
    agent.tasks.clear()
    board.fleet.remove(agent)
    if agent.session == session:
        return tasks, agent.retired
    if agent.health is not AgentHealth.LOST and agent.status is not AgentStatus.STOPPED:
        board.instruct(agent.id, Control(Superseded(session=agent.session, by=session)))
    return tasks, (*agent.retired, agent.session)[-RETIRED_SESSIONS:]


def _hand_over(board: Board, agent: AgentState, tasks: list[TaskState]) -> None:
    """Keep the tasks of the earlier life with the agent's id until the horizon has passed the registration."""
    for task in tasks:
        agent.tasks[task.id] = task
        agent.load_ms += task.load_ms
        task.agent = agent
    board.fleet.refresh(agent)
    if tasks:
        board.set_agent(agent, AgentStatus.RUNNING if agent.status is AgentStatus.IDLE else agent.status)
    if any(task.session != agent.session for task in tasks):
        board.horizon_timers.set(agent.registered_at, TimerKind.SESSION, agent.id)


def sign_out(board: Board, message: Unregister, at: int) -> None:
    """Take an agent's leave; what it still holds goes back to waiting once its last reports are read."""
    agent = board.fleet.agents.get(message.agent_id)
    if agent is None or agent.session != message.session:
        return
    board.set_agent(agent, AgentStatus.STOPPED, message.reason or None)
    board.fleet.refresh(agent)
    board.horizon_timers.set(at, TimerKind.SESSION, agent.id)
    board.clock_timers.set(at + board.config.forget_agent_ms, TimerKind.FORGET, agent.id)


def beat(board: Board, message: Heartbeat, at: int) -> None:
    """Take a heartbeat: the lease runs anew, and what the agent holds is compared with what it should hold."""
    agent = board.fleet.agents.get(message.agent_id)
    if agent is None:
        board.instruct(message.agent_id, Control(Reregister(session=message.session)))
        return
    if agent.session != message.session:
        note = (
            Superseded(session=message.session, by=agent.session)
            if message.session in agent.retired
            else Reregister(session=message.session)
        )
        board.instruct(agent.id, Control(note))
        return
    if agent.status is AgentStatus.STOPPED:
        return
    agent.last_beat = max(agent.last_beat, at)
    _judge(board, agent, message, at)
    _reconcile(board, agent, message, at)


def _judge(board: Board, agent: AgentState, message: Heartbeat, at: int) -> None:
    health = AgentHealth.HEALTHY
    if message.lag > board.config.blocked_lag_s:
        health = AgentHealth.BLOCKED
    elif agent.deaf_until > at:
        health = AgentHealth.DEAF
    if message.draining and agent.status in (AgentStatus.IDLE, AgentStatus.RUNNING):
        board.set_agent(agent, AgentStatus.DRAINING, "its process is shutting down")
    _set_health(board, agent, health)


def _set_health(board: Board, agent: AgentState, health: AgentHealth) -> None:
    if agent.health is health:
        return
    if agent.health is AgentHealth.LOST and agent.status is AgentStatus.ERROR:
        board.set_agent(agent, AgentStatus.RUNNING if agent.tasks else AgentStatus.IDLE)
        board.horizon_timers.set(agent.last_beat + agent.lease_ms, TimerKind.LEASE, agent.id)
    agent.health = health
    board.fleet.refresh(agent)
    board.touch_agent(agent)
    board.announce(agent)


def _reconcile(board: Board, agent: AgentState, message: Heartbeat, at: int) -> None:
    held = dict(message.holding)
    for task_id, attempt in held.items():
        task = agent.tasks.get(task_id)
        if task is None or task.attempt != attempt or task.session != message.session:
            stop = CancelAttempt(
                session=message.session,
                task_id=task_id,
                attempt=attempt,
                reason="this attempt is no longer current",
            )
            board.instruct(agent.id, Control(stop))
    for task in list(agent.tasks.values()):
        if task.session != message.session:
            continue
        if task.id in held:
            task.missing_since = None
        elif task.missing_since is None:
            if at - (task.assigned_at or at) > MISSED_DELIVERY_MS:
                task.missing_since = at
        elif board.horizon >= task.missing_since:
            _undelivered(board, agent, task, at)


def _undelivered(board: Board, agent: AgentState, task: TaskState, at: int) -> None:
    """Take back a task that the agent does not have: two heartbeats did not list it, no report of it is unread."""
    if task.status is TaskStatus.ASSIGNED:
        lifecycle.requeue(board, task, "undelivered", at)
        agent.deaf_until = at + board.config.deaf_probation_ms
        board.clock_timers.set(agent.deaf_until, TimerKind.PROBATION, agent.id)
        _set_health(board, agent, AgentHealth.DEAF)
    else:
        lifecycle.attempt_failed(board, task, FailureReason.AGENT_LOST, None, at)


def lease_ended(board: Board, agent_id: str, at: int) -> None:
    """Declare an agent lost, unless it was heard of since its lease timer was set; called on the horizon."""
    agent = board.fleet.agents.get(agent_id)
    if agent is None or agent.status is AgentStatus.STOPPED or agent.health is AgentHealth.LOST:
        return
    due = agent.last_beat + agent.lease_ms
    if at < due:
        board.horizon_timers.set(due, TimerKind.LEASE, agent.id)
        return
    agent.health = AgentHealth.LOST
    board.set_agent(agent, AgentStatus.ERROR, "no heartbeat within its lease")
    board.fleet.refresh(agent)
    release_all(board, agent, at)
    board.clock_timers.set(at + board.config.forget_agent_ms, TimerKind.FORGET, agent.id)


def session_ended(board: Board, agent_id: str, at: int) -> None:
    """Free what the agent's earlier session did not finish; called when all reports of it are read."""
    agent = board.fleet.agents.get(agent_id)
    if agent is not None:
        keep = agent.session if agent.status is not AgentStatus.STOPPED else None
        release_all(board, agent, at, keep=keep)


def release_all(board: Board, agent: AgentState, at: int, *, keep: str | None = None) -> None:
    """Take the agent's tasks away, those of session `keep` apart.

    A task that had started loses an attempt; one that had not goes back as if nothing had happened.
    """
    for task in list(agent.tasks.values()):
        if task.session == keep:
            continue
        if task.status is TaskStatus.RUNNING:
            lifecycle.attempt_failed(board, task, FailureReason.AGENT_LOST, None, at)
        else:
            lifecycle.requeue(board, task, FailureReason.AGENT_LOST.value, at)


def command(board: Board, agent_id: str, kind: str, reason: str) -> None:
    """Tell an agent to drain or restart; it gets nothing new from now on."""
    agent = board.fleet.agents.get(agent_id)
    if agent is None or agent.status is AgentStatus.STOPPED:
        return
    if agent.status in (AgentStatus.IDLE, AgentStatus.RUNNING):
        board.set_agent(agent, AgentStatus.DRAINING, reason or f"{kind} was asked for")
        board.fleet.refresh(agent)
    board.instruct(
        agent_id,
        Control(Instruction.model_validate({"type": kind, "session": agent.session, "reason": reason})),
    )


def unknown(board: Board, agent_id: str, session: str) -> AgentState:
    """Return a stand-in for an agent that the ledger names but does not know: its tasks are freed on the horizon."""
    agent = AgentState(
        id=agent_id,
        session=session,
        capabilities=(),
        slots=1,
        registered_at=board.now,
        lease_ms=0,
        last_beat=board.now,
    )
    agent.status, agent.health = AgentStatus.ERROR, AgentHealth.HEALTHY
    board.fleet.add(agent)
    board.horizon_timers.set(board.now, TimerKind.LEASE, agent_id)
    return agent


def probation_over(board: Board, agent_id: str, at: int) -> None:
    """Try a deaf agent again."""
    agent = board.fleet.agents.get(agent_id)
    if agent is not None and agent.health is AgentHealth.DEAF and agent.deaf_until <= at:
        _set_health(board, agent, AgentHealth.HEALTHY)


def forget(board: Board, agent_id: str, at: int) -> None:
    """Drop an agent that has been away for long and holds nothing."""
    agent = board.fleet.agents.get(agent_id)
    gone = agent is not None and (agent.status is AgentStatus.STOPPED or agent.health is AgentHealth.LOST)
    if agent is not None and gone and not agent.tasks and agent.last_beat + board.config.forget_agent_ms <= at:
        board.forget_agent(agent)
