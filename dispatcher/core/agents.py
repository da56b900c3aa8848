"""An agent's life: signing in and out, heartbeats, being lost and coming back.

Whatever takes tasks away from an agent waits for the horizon (see `events.Horizon`): only then is it certain that no
report of it lies unread.
"""

from dataclasses import replace

from bus.messages import (
    CancelAttempt,
    Control,
    Heartbeat,
    Register,
    Registered,
    Reregister,
    Superseded,
    TaskError,
    Unregister,
)
from bus.requirements import AGENT_ID
from bus.states import AgentHealth, AgentStatus, FailureReason, TaskStatus
from dispatcher.core import breaker, cancellation, fail_fast, failing, lifecycle, predecessors, steering
from dispatcher.core.board import Board
from dispatcher.core.model import AgentState, TaskState, session_of
from dispatcher.core.record import thousandths
from dispatcher.core.timers import TimerKind

RETIRED_SESSIONS = 16
MISSED_DELIVERY_MS = 2_000
STAND_IN_MS = 5_000
"""How long an agent that nobody knows may take to sign in before its tasks go to others."""
CAME_BACK = TaskError(type="AgentLost", message="its agent was not heard of for longer than its lease, and came back")


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
    if agent is not None and agent.session == message.session and agent.status is AgentStatus.STOPPED:
        return  # its registration is read a second time, after its farewell
    tasks: list[TaskState] = []
    retired: tuple[str, ...] = ()
    inherited: dict[str, predecessors.Predecessor] = {}
    if agent is not None:
        inherited = predecessors.inherit(agent, message.session, message.capabilities)
        tasks, retired = _replace(board, agent, message.session)
    fresh = AgentState(
        id=message.agent_id,
        session=message.session,
        capabilities=message.capabilities,
        slots=message.slots,
        resources=thousandths(message.resources),
        rate=message.rate,
        registered_at=at,
        lease_ms=int(message.lease * 1000),
        attributes={name: value for name, value in message.attributes.items() if name != AGENT_ID},
        accepts=message.accepts,
        metadata=dict(message.metadata),
        heartbeat_interval=message.heartbeat_interval,
        retired=retired,
        predecessors=inherited,
        # Not `at`: what was written since may have been read before this, and nobody listened before this leader began.
        last_beat=board.now,
        life=board.new_life(),
    )
    if agent is not None:
        fresh.watched = agent.watched  # by a timer of this id, which goes on
    if agent is not None and agent.session == message.session:
        fresh.completed, fresh.failed = agent.completed, agent.failed
        fresh.success, fresh.latency_ms, fresh.standing = agent.success, agent.latency_ms, agent.standing
        fresh.breakers, fresh.shut = agent.breakers, agent.shut
        fresh.occupied = agent.occupied
        if agent.health in (AgentHealth.BLOCKED, AgentHealth.DEAF):
            fresh.health, fresh.deaf_until, fresh.blocked_since = agent.health, agent.deaf_until, agent.blocked_since
        _acquit(board, agent)
    elif agent is not None:
        breaker.forget(board, agent)
    if agent is not None:
        steering.carry_over(agent, fresh, message, at)
    board.add_agent(fresh)
    if agent is not None:
        breaker.judge(board, fresh)
        fail_fast.review(board)
    board.throttle(fresh)
    _hand_over(board, fresh, tasks)
    board.horizon_timers.set(fresh.last_beat + fresh.lease_ms, TimerKind.LEASE, fresh.id, fresh.life)
    board.touch_agent(fresh)
    board.announce(fresh)
    board.instruct(fresh.id, Control(Registered(session=fresh.session, revision=message.revision)))
    steering.welcome(board, fresh)


def _replace(board: Board, agent: AgentState, session: str) -> tuple[list[TaskState], tuple[str, ...]]:
    tasks = list(agent.tasks.values())
    board.fleet.remove(agent)
    if agent.session == session:
        return tasks, agent.retired
    if agent.health is not AgentHealth.LOST and agent.status is not AgentStatus.STOPPED:
        board.instruct(agent.id, Control(Superseded(session=agent.session, by=session)))
    return tasks, (*agent.retired, agent.session)[-RETIRED_SESSIONS:]


def _hand_over(board: Board, agent: AgentState, tasks: list[TaskState]) -> None:
    """Keep the tasks of the earlier life with the agent's id until the horizon has passed the registration."""
    for task in tasks:
        lifecycle.move_to(board, task, agent)
    if any(session_of(task) != agent.session for task in tasks):
        board.horizon_timers.set(agent.registered_at, TimerKind.SESSION, agent.id)


def sign_out(board: Board, message: Unregister, at: int) -> None:
    """Take an agent's leave; what it still holds goes back to waiting once its last reports are read."""
    agent = board.fleet.agents.get(message.agent_id)
    if agent is None or agent.session != message.session:
        return
    if not agent.capabilities:  # a stand-in: nothing of it is stored
        agent.last_beat = at - agent.lease_ms
        board.horizon_timers.set(at, TimerKind.LEASE, agent.id, agent.life)
        return
    steering.signed_out(board, agent, at)
    agent.deleted = agent.deleted or message.forget
    board.set_agent(agent, AgentStatus.STOPPED, message.reason or None)
    board.fleet.levels.refresh(agent)
    board.horizon_timers.set(at, TimerKind.SESSION, agent.id)
    board.clock_timers.set(at + board.config.forget_agent_ms, TimerKind.FORGET, agent.id)
    fail_fast.review(board)


def beat(board: Board, message: Heartbeat, at: int) -> None:
    """Take a heartbeat: the lease runs anew, and what the agent holds is compared with what it should hold."""
    agent = board.fleet.agents.get(message.agent_id)
    if agent is None:
        board.instruct(message.agent_id, Control(Reregister(session=message.session)))
        return
    if agent.session != message.session:
        predecessors.heard(agent, message.session, at)
        note = (
            Superseded(session=message.session, by=agent.session)
            if message.session in agent.retired
            else Reregister(session=message.session)
        )
        board.instruct(agent.id, Control(note))
        return
    if agent.status is AgentStatus.STOPPED:
        return
    if not agent.capabilities:
        board.instruct(agent.id, Control(Reregister(session=message.session)))
        return  # only a stand-in: its record could not be read, and only the agent can say what it is
    agent.last_beat = max(agent.last_beat, at)
    _judge(board, agent, message, at)
    steering.heard(board, agent, message, at)
    _reconcile(board, agent, message, at)


def _judge(board: Board, agent: AgentState, message: Heartbeat, at: int) -> None:
    health = AgentHealth.HEALTHY
    if message.lag > board.config.blocked_lag_s:
        health = AgentHealth.BLOCKED
    elif agent.deaf_until > at:
        health = AgentHealth.DEAF
    if agent.occupied != message.occupied:
        agent.occupied = message.occupied
        board.fleet.levels.refresh(agent)
        if agent.free < 0:
            board.watch(agent)
    _set_health(board, agent, health)
    if message.draining and agent.status in (AgentStatus.IDLE, AgentStatus.RUNNING):
        board.set_agent(agent, AgentStatus.DRAINING, "its process is shutting down")
        board.fleet.levels.refresh(agent)


def _set_health(board: Board, agent: AgentState, health: AgentHealth) -> None:
    if agent.health is health:
        return
    if agent.health is AgentHealth.LOST and agent.status is AgentStatus.ERROR:
        board.set_agent(agent, AgentStatus.RUNNING if agent.tasks else AgentStatus.IDLE)
        if steering.leaves(agent):
            board.set_agent(agent, AgentStatus.DRAINING, agent.request.reason if agent.request else None)
        breaker.judge(board, agent)
        board.horizon_timers.set(agent.last_beat + agent.lease_ms, TimerKind.LEASE, agent.id, agent.life)
        _acquit(board, agent)
    agent.health = health
    agent.blocked_since = board.now if health is AgentHealth.BLOCKED else None
    if health is AgentHealth.BLOCKED:
        board.watch(agent)
    board.fleet.levels.refresh(agent)
    board.touch_agent(agent)
    board.announce(agent)


def _acquit(board: Board, agent: AgentState) -> None:
    """Note that none of the attempts with which it was lost has killed it: they are no evidence of poison."""
    for task_id, number in agent.lost:
        task = board.live(task_id)
        if task is not None:
            task.attempts = tuple(replace(a, error=CAME_BACK) if a.attempt == number else a for a in task.attempts)
            board.touch(task)
    agent.lost.clear()


def _reconcile(board: Board, agent: AgentState, message: Heartbeat, at: int) -> None:
    held = dict(message.holding)
    for task_id, attempt in held.items():
        task = agent.tasks.get(task_id)
        if task is None or task.attempt != attempt or session_of(task) != message.session:
            stop = CancelAttempt(
                session=message.session,
                task_id=task_id,
                attempt=attempt,
                reason="this attempt is no longer current",
            )
            board.instruct(agent.id, Control(stop))
    # Nothing is read while its loop is blocked; the heartbeats have a thread of their own, and go on.
    awake = at - int(message.lag * 1000)
    for task in list(agent.tasks.values()):
        current = task.current
        if current is None or current.session != message.session:
            continue
        if held.get(task.id) == task.attempt:
            current.missing_since = None
            cancellation.remind(board, task, at)
        elif current.missing_since is None:
            if awake - current.assigned_at > MISSED_DELIVERY_MS:
                current.missing_since = at
        elif board.horizon >= current.missing_since and awake >= current.missing_since:
            _undelivered(board, agent, task, at)


def _undelivered(board: Board, agent: AgentState, task: TaskState, at: int) -> None:
    """Take back a task that the agent does not have: two heartbeats did not list it, no report of it is unread."""
    if task.status is TaskStatus.ASSIGNED:
        lifecycle.requeue(board, task, "undelivered", at)
        agent.deaf_until = at + board.config.deaf_probation_ms
        board.clock_timers.set(agent.deaf_until, TimerKind.PROBATION, agent.id)
        _set_health(board, agent, AgentHealth.DEAF)
    else:
        failing.attempt_failed(board, task, FailureReason.AGENT_LOST, None, at)


def lease_ended(board: Board, agent_id: str, life: int, at: int) -> None:
    """Declare an agent lost, unless it was heard of since its lease timer was set; called on the horizon.

    One that is lost already loses its tasks here, too: a leader may have died when it had stored the loss of the agent
    and not yet those of all its tasks.
    """
    agent = board.fleet.agents.get(agent_id)
    if agent is None or agent.life != life or agent.status is AgentStatus.STOPPED:
        return
    due = agent.last_beat + agent.lease_ms
    if at < due:
        board.horizon_timers.set(due, TimerKind.LEASE, agent.id, life)
        return
    if not agent.capabilities:
        release_all(board, agent, at)
        board.fleet.remove(agent)
        return
    if agent.health is AgentHealth.LOST:
        release_all(board, agent, at)
        return
    agent.health = AgentHealth.LOST
    board.set_agent(agent, AgentStatus.ERROR, "no heartbeat within its lease")
    board.fleet.levels.refresh(agent)
    agent.lost = [(task.id, task.attempt) for task in agent.tasks.values() if task.status is TaskStatus.RUNNING]
    release_all(board, agent, at)
    board.clock_timers.set(at + board.config.forget_agent_ms, TimerKind.FORGET, agent.id)


def session_ended(board: Board, agent_id: str, at: int) -> None:
    """Free what the agent's earlier session did not finish; called when all reports of it are read."""
    agent = board.fleet.agents.get(agent_id)
    if agent is not None:
        keep = agent.session if agent.status is not AgentStatus.STOPPED else None
        release_all(board, agent, at, keep=keep)
        if agent.predecessors:
            _wait_for_predecessors(board, agent)
        if agent.deleted or steering.deleted(agent):
            forget(board, agent_id, at)


def _wait_for_predecessors(board: Board, agent: AgentState) -> None:
    """Look again when the next session that was replaced will have stopped what is exclusive."""
    before = len(agent.predecessors)
    until = predecessors.tidy(agent)
    if len(agent.predecessors) != before:
        board.touch_agent(agent)
    if until is not None:
        board.horizon_timers.set(until, TimerKind.SESSION, agent.id)


def release_all(board: Board, agent: AgentState, at: int, *, keep: str | None = None) -> None:
    """Take the agent's tasks away, those of session `keep` apart, and those that an earlier session may still run.

    A task that had started loses an attempt; one that had not goes back as if nothing had happened.
    """
    for task in list(agent.tasks.values()):
        if session_of(task) == keep or (agent.predecessors and predecessors.keeps(agent, task, at)):
            continue
        if task.status is TaskStatus.RUNNING:
            failing.attempt_failed(board, task, FailureReason.AGENT_LOST, None, at)
        else:
            lifecycle.requeue(board, task, FailureReason.AGENT_LOST.value, at)


def unknown(board: Board, agent_id: str, session: str) -> AgentState:
    """Return a stand-in for an agent that the ledger names but does not know; nothing of it is ever stored.

    If it lives, its next heartbeat is answered by asking it to sign in; if not, its tasks are freed on the horizon.
    """
    agent = AgentState(
        id=agent_id,
        session=session,
        capabilities=(),
        slots=1,
        registered_at=board.now,
        lease_ms=STAND_IN_MS,
        last_beat=board.now,
        life=board.new_life(),
    )
    agent.status = AgentStatus.ERROR
    board.add_agent(agent)
    board.horizon_timers.set(board.now + STAND_IN_MS, TimerKind.LEASE, agent_id, agent.life)
    return agent


def probation_over(board: Board, agent_id: str, at: int) -> None:
    """Try a deaf agent again."""
    agent = board.fleet.agents.get(agent_id)
    if agent is not None and agent.health is AgentHealth.DEAF and agent.deaf_until <= at:
        _set_health(board, agent, AgentHealth.HEALTHY)


def throttle_over(board: Board, agent_id: str) -> None:
    """Let an agent have work again whose rate allows it."""
    agent = board.fleet.agents.get(agent_id)
    if agent is not None and board.limits.closed(agent.gates, board.now) is None:
        agent.throttled = False
        board.fleet.levels.refresh(agent)


def forget(board: Board, agent_id: str, at: int) -> None:
    """Drop an agent that has been away for long, or has left for good, and holds nothing."""
    agent = board.fleet.agents.get(agent_id)
    gone = agent is not None and (agent.status is AgentStatus.STOPPED or agent.health is AgentHealth.LOST)
    if agent is None or not gone:
        return
    for_good = agent.deleted or steering.deleted(agent)
    due = at if for_good else agent.last_beat + board.config.forget_agent_ms
    if not agent.tasks and due <= at:
        breaker.forget(board, agent)
        board.forget_agent(agent)
        fail_fast.review(board)
    else:
        board.clock_timers.set(max(due, at + 1_000), TimerKind.FORGET, agent_id)
