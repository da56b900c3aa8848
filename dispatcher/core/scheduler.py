"""The scheduler of one pool: `events in, now → decisions out`, with no I/O and no clock of its own.

A pass (`step`) takes what has happened, lets due timers ring, places what can be placed, and returns the decisions
for the ledger. Its memory runs ahead of the ledger by the decisions not yet committed; if a commit fails, the leader
drops this scheduler and loads a new one from the ledger.
"""

from collections.abc import Iterable
from heapq import heappop

from bus.messages import CancelAttempt, CancelTasks, Control, TaskError, WatchTasks
from bus.states import FailureReason, TaskPriority, TaskStatus
from dispatcher.core import agents, lifecycle, reports
from dispatcher.core.board import Board
from dispatcher.core.config import SchedulerConfig
from dispatcher.core.decisions import Accepted, Decisions
from dispatcher.core.events import (
    Beat,
    Blind,
    Commanded,
    Duplicate,
    Event,
    Horizon,
    Refused,
    Reported,
    SignedIn,
    SignedOut,
    Submitted,
)
from dispatcher.core.model import AgentState, Requirement, TaskState
from dispatcher.core.record import task_of
from dispatcher.core.timers import TimerKind


class Scheduler:
    """Decides for one pool. The same events, times and seed give the same decisions."""

    def __init__(self, config: SchedulerConfig | None = None, *, seed: int = 0) -> None:
        self.board = Board(config or SchedulerConfig(), seed)

    # --- a pass

    def step(self, events: Iterable[Event], now: int) -> Decisions:
        """Take `events` in their order at the instant `now` (ms, server's clock), and decide.

        `now` must not go backwards. Times of events may lie before it, never after what the horizon says is unread.
        """
        board = self.board
        board.now = max(now, board.now)
        for event in events:
            self._take(event)
        self._ring()
        self._place()
        return board.close()

    @property
    def next_due(self) -> int | None:
        """When the next timer on the clock rings (ms); None if nothing is to come."""
        return self.board.clock_timers.next_due

    def load(self, fleet: Iterable[AgentState], tasks: Iterable[tuple[TaskState, str]], now: int) -> None:
        """Take over what the ledger has: agents first, then live tasks, each with its agent's id ('' for none).

        Every lease starts anew. A task whose agent is unknown, or has another session now, is freed on the horizon.
        """
        board = self.board
        board.now = max(now, board.now)
        for agent in fleet:
            board.fleet.add(agent)
            board.horizon_timers.set(now + agent.lease_ms, TimerKind.LEASE, agent.id)
            board.horizon_timers.set(now, TimerKind.SESSION, agent.id)
            board.clock_timers.set(now + board.config.forget_agent_ms, TimerKind.FORGET, agent.id)
        for task, agent_id in tasks:
            self._restore(task, agent_id)

    def _restore(self, task: TaskState, agent_id: str) -> None:
        board = self.board
        board.tasks[task.id] = task
        self._arm_expiry(task)
        if task.status is TaskStatus.PENDING:
            lifecycle.wait(board, task)
            return
        agent = board.fleet.agents.get(agent_id)
        if agent is None:
            agent = agents.unknown(board, agent_id, task.session)
        lifecycle.resume(board, task, agent)

    # --- events

    def _take(self, event: Event) -> None:  # noqa: C901 - one branch per kind of event
        board = self.board
        match event:
            case Submitted():
                self._submit(event)
            case Reported():
                reports.take(board, event.message, event.at)
            case Beat():
                agents.beat(board, event.message, event.at)
            case SignedIn():
                agents.sign_in(board, event.message, event.at)
            case SignedOut():
                agents.sign_out(board, event.message, event.at)
            case Commanded():
                self._command(event)
            case Horizon():
                board.horizon = max(board.horizon, event.at)
            case Blind():
                for agent in board.fleet.agents.values():
                    agent.last_beat += event.duration_ms
            case Duplicate():
                self._forget_duplicate(event.task_id)
            case Refused():
                self._refuse(event)

    def _submit(self, event: Submitted) -> None:
        board = self.board
        if event.task_id in board.tasks:
            self._watch(event.task_id, event.header.reply_to)
            return
        task = task_of(board.config, event.task_id, event.header, event.at)
        task.spec = event.body
        board.tasks[task.id] = task
        board.touch(task)
        board.tell(task)
        board.draft.accepted.append(Accepted(task.id, task.requirement.capability, task.priority.value))
        tombstone = board.tombstones.pop(task.id, None)
        if tombstone is not None:
            lifecycle.cancel(board, task, tombstone[0], board.now)
            return
        self._arm_expiry(task)
        lifecycle.wait(board, task)

    def _arm_expiry(self, task: TaskState) -> None:
        if task.expires_at is not None:
            self.board.clock_timers.set(task.expires_at, TimerKind.EXPIRE, task.id)

    def _refuse(self, event: Refused) -> None:
        board = self.board
        if event.task_id in board.tasks:
            return
        task = TaskState(
            id=event.task_id,
            requirement=Requirement(""),
            priority=TaskPriority.MEDIUM,
            score=event.at,
            enqueued_at=event.at,
            watchers=() if event.reply_to is None else (event.reply_to,),
            spec=event.body,
        )
        board.tasks[task.id] = task
        lifecycle.fail(board, task, FailureReason.REJECTED, event.error, event.at)

    def _forget_duplicate(self, task_id: str) -> None:
        task = self.board.live(task_id)
        if task is not None:
            lifecycle.withdraw(self.board, task)

    def _command(self, event: Commanded) -> None:
        board, command = self.board, event.command
        match command:
            case CancelTasks():
                for task_id in command.task_ids:
                    self._cancel(task_id, command.reason, command.by)
            case WatchTasks():
                for task_id in command.task_ids:
                    self._watch(task_id, command.reply_to)
            case _:
                agents.command(board, command.agent_id, command.type, command.reason)

    def _cancel(self, task_id: str, reason: str, by: str) -> None:
        board = self.board
        task = board.live(task_id)
        if task is None:
            board.tombstones[task_id] = (reason, by)
            board.clock_timers.set(board.now + board.config.tombstone_ms, TimerKind.TOMBSTONE, task_id)
            return
        agent = task.agent
        if agent is not None:
            stop = CancelAttempt(session=task.session, task_id=task.id, attempt=task.attempt, reason=reason)
            board.instruct(agent.id, Control(stop))
        lifecycle.cancel(board, task, reason, board.now)

    def _watch(self, task_id: str, client_id: str | None) -> None:
        task = self.board.live(task_id)
        if task is None or client_id is None or client_id in task.watchers:
            return
        task.watchers = (*task.watchers, client_id)
        self.board.touch(task)

    # --- timers

    def _ring(self) -> None:
        board = self.board
        for kind, subject, mark in board.horizon_timers.pop_due(board.horizon):
            if kind is TimerKind.LEASE:
                agents.lease_ended(board, subject, board.horizon)
            elif kind is TimerKind.SESSION:
                agents.session_ended(board, subject, board.horizon)
            else:
                self._ran_too_long(subject, mark)
        for kind, subject, mark in board.clock_timers.pop_due(board.now):
            if kind is TimerKind.READY:
                task = board.live(subject)
                if task is not None and task.status is TaskStatus.PENDING and task.attempt == mark:
                    board.touch(task)
                    board.enqueue(task)
            elif kind is TimerKind.EXPIRE:
                self._expire(subject)
            elif kind is TimerKind.PROBATION:
                agents.probation_over(board, subject, board.now)
            elif kind is TimerKind.FORGET:
                agents.forget(board, subject, board.now)
            else:
                board.tombstones.pop(subject, None)

    def _expire(self, task_id: str) -> None:
        board = self.board
        task = board.live(task_id)
        if task is None or task.status is not TaskStatus.PENDING or task.attempt > 0:
            return
        why = board.fleet.why_waiting(board.fleet.class_of(task.requirement))
        error = TaskError(type="QueueTimeout", message=f"no agent took it within its queue_timeout: {why}")
        lifecycle.fail(board, task, FailureReason.EXPIRED, error, board.now)

    def _ran_too_long(self, task_id: str, attempt: int) -> None:
        board = self.board
        task = board.live(task_id)
        if task is None or task.attempt != attempt or task.status is not TaskStatus.RUNNING or task.agent is None:
            return
        stop = CancelAttempt(session=task.session, task_id=task.id, attempt=attempt, reason="run_timeout is over")
        board.instruct(task.agent.id, Control(stop))
        error = TaskError(type="RunTimeout", message="its agent neither finished nor stopped it within run_timeout")
        lifecycle.attempt_failed(board, task, FailureReason.TIMEOUT, error, board.horizon)

    # --- placement

    def _place(self) -> None:
        """Place heads of classes, lowest score first, until nobody who waits finds room."""
        board, fleet = self.board, self.board.fleet
        if fleet.gained:
            gained, fleet.gained = fleet.gained, 0
            for cls in [c for c in board.blocked if c.mask & gained]:
                del board.blocked[cls]
                head = cls.line.head()
                if head is not None:
                    board.offer(cls, head.score)
        ready = board.ready
        while ready:
            score, _, cls = heappop(ready)
            if cls.queued_score != score:
                continue
            cls.queued_score = None
            head = cls.line.head()
            if head is None:
                continue
            if head.score != score:
                board.offer(cls, head.score)
                continue
            estimate = fleet.estimate(cls.requirement.capability, head.estimate_ms)
            agent = fleet.choose(cls, estimate, board.rng)
            if agent is None:
                board.blocked[cls] = None
                continue
            cls.line.pop()
            lifecycle.assign(board, head, agent)
            following = cls.line.head()
            if following is not None:
                board.offer(cls, following.score)

    # --- what operators see

    def why_waiting(self) -> dict[Requirement, str]:
        """Say for each requirement class with waiting tasks why they wait."""
        fleet = self.board.fleet
        return {cls.requirement: fleet.why_waiting(cls) for cls in fleet.classes.values() if len(cls.line)}
