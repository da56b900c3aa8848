"""The scheduler of one pool: `events in, now → decisions out`, with no I/O and no clock of its own.

A pass (`step`) takes what has happened, lets due timers ring, places what can be placed, and returns the decisions
for the ledger. Its memory runs ahead of the ledger by the decisions not yet committed; if a commit fails, the leader
drops this scheduler and loads a new one from the ledger.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from pydantic_core import from_json

from bus.ids import DEFAULT_POOL, Pool
from bus.states import AgentHealth, AgentStatus, FailureReason, TaskPriority, TaskStatus
from dispatcher.core import (
    acceptance,
    agents,
    breaker,
    cancellation,
    children,
    commands,
    dead_letters,
    deadlines,
    firing,
    lifecycle,
    placement,
    reports,
    ringing,
    steering,
    sweeps,
    task_commands,
)
from dispatcher.core.board import Board
from dispatcher.core.config import SchedulerConfig
from dispatcher.core.decisions import Decisions, Note, NoteKind
from dispatcher.core.events import (
    Beat,
    Blind,
    Commanded,
    Duplicate,
    Event,
    Found,
    Horizon,
    OfDeadLetters,
    Refused,
    Reported,
    SignedIn,
    SignedOut,
    Strays,
    Submitted,
)
from dispatcher.core.model import AgentState, TaskState
from dispatcher.core.record import StoredTask, restore
from dispatcher.core.terms import Requirement, Terms
from dispatcher.core.timers import TimerKind
from dispatcher.core.waiting import why_waiting

Timed = Submitted | Refused | Commanded | SignedIn | SignedOut | Beat | Reported | Horizon
"""An event that is of an instant."""

AHEAD_MS: Final = 60_000
"""How far ahead of the clock a heartbeat is believed to be; one that claims more is of now."""


class Scheduler:
    """Decides for one pool. The same events, times and seed give the same decisions."""

    def __init__(self, config: SchedulerConfig | None = None, *, seed: int = 0, pool: Pool = DEFAULT_POOL) -> None:
        self.board = Board(config or SchedulerConfig(), seed, pool)
        self._unfinished = False
        """True when the last pass could have placed more."""

    # --- a pass

    def step(self, events: Iterable[Event], now: int) -> Decisions:
        """Take `events` in their order at the instant `now` (ms, server's clock), and decide.

        `now` must not go backwards. Events that claim to be of a later time are taken as being of now.
        """
        board = self.board
        board.now = max(now, board.now)
        board.began = board.began or board.now
        for event in events:
            if not isinstance(event, Duplicate | Blind | Found | Strays | OfDeadLetters) and event.at > board.now:
                self._take_early(event, event.at)
            else:
                self._take(event)
        ringing.ring(self.board)
        if board.sweeps and not board.loading:
            sweeps.work(board, task_commands.apply)
        if board.unsorted:
            board.sort_out()
        children.cut(board)
        if not board.loading:
            children.inquire(board)
        self._place()
        return board.close()

    @property
    def next_due(self) -> int | None:
        """When the next timer rings (ms), perhaps in the past: a pass does only so much; None if none will."""
        board = self.board
        family = board.family
        if self._unfinished or family.orphaned or board.unsorted:
            return board.now
        if not board.loading and (family.doubtful or board.bounds.busy or (board.sweeps and sweeps.unfinished(board))):
            return board.now
        overdue = board.horizon_timers.next_due
        if overdue is not None and overdue <= board.horizon:
            return overdue
        return board.clock_timers.next_due

    @property
    def loading(self) -> bool:
        """True while not all live tasks of the ledger are loaded."""
        return self.board.loading

    def begin_loading(self) -> None:
        """Let passes be made while live tasks are still being loaded; `load` may be called between them until `loaded`.

        The tasks in agents' hands must be loaded before the first pass, and until all are loaded there must be no
        event but what agents say: a submission, or a command, may be about a task that is not there yet. Of those that
        wait, the ones loaded first are placed first. What concerns all tasks (sweeps, bounds, schedules, the parents of
        children) is decided afterwards.
        """
        self.board.loading = True

    def loaded(self) -> None:
        """Take note that all live tasks of the ledger are loaded."""
        board = self.board
        board.loading = False
        board.ended = set()
        board.terms.forget_stored()
        for schedule in board.schedules.by_id.values():
            firing.arm(board, schedule)

    def load(
        self, fleet: Iterable[AgentState], tasks: Iterable[StoredTask], now: int, notes: Iterable[Note] = ()
    ) -> None:
        """Take over what the ledger has: agents first, then live tasks.

        Every lease starts anew. A task whose agent is unknown, or has another session now, is freed on the horizon.
        """
        board = self.board
        board.now = max(now, board.now)
        board.began = board.began or board.now
        notes = tuple(notes)
        for note in notes:
            self._remembered(note, self._remember)
        self._load_schedules(notes)
        for agent in fleet:
            agent.life = board.new_life()
            if agent.status is AgentStatus.RUNNING:
                agent.status = AgentStatus.IDLE  # until its tasks are loaded, if it still has any
            board.add_agent(agent)
            board.throttle(agent)
            steering.arm(board, agent)
            if agent.health is AgentHealth.BLOCKED:
                agent.blocked_since = now
                board.watch(agent)
            board.horizon_timers.set(now + agent.lease_ms, TimerKind.LEASE, agent.id, agent.life)
            board.horizon_timers.set(now, TimerKind.SESSION, agent.id)
            board.clock_timers.set(now + board.config.forget_agent_ms, TimerKind.FORGET, agent.id)
        for note in notes:
            if note.kind is NoteKind.BREAKER and note.value is not None:
                self._remembered(note, lambda note: breaker.restore(board, note.field, note.value or b""))
        for stored in tasks:
            if not board.loading or (stored.task_id not in board.tasks and stored.task_id not in board.ended):
                self._restore(stored)

    def _load_schedules(self, notes: Sequence[Note]) -> None:
        board = self.board
        board.draft.notes += board.schedules.remember(notes, board.now)
        for note in notes:
            if note.kind is NoteKind.SCHEDULE and note.field in board.schedules.by_id and not board.loading:
                firing.arm(board, board.schedules.by_id[note.field])

    def _remembered(self, note: Note, remember: Callable[[Note], None]) -> None:
        """Take a note over; one that cannot be read is forgotten, for it must not keep a pool without a leader."""
        try:
            remember(note)
        except (ValueError, KeyError, TypeError):
            self.board.draft.notes.append(Note(note.kind, note.field, None))

    def _remember(self, note: Note) -> None:
        board = self.board
        if note.value is None or note.kind in (NoteKind.BREAKER, NoteKind.SCHEDULE, NoteKind.SCHEDULE_PROGRESS):
            return  # breakers are remembered when their agents are, schedules all together
        if note.kind is NoteKind.SWEEP:
            sweeps.restore(board, note.field, note.value)
            return
        said = from_json(note.value)
        match note.kind:
            case NoteKind.BOUND:
                board.bounds.restore(note.field, note.value)
            case NoteKind.STICKY:
                board.sticky.restore(note.field, note.value)
            case NoteKind.RATE:
                board.limits.arrivals[note.field] = float(said)
            case NoteKind.TOMBSTONE:
                at = int(said["at"])
                board.tombstones[note.field] = str(said["reason"]), str(said.get("by", "")), at
                board.clock_timers.set(at + board.config.tombstone_ms, TimerKind.TOMBSTONE, note.field)

    def _restore(self, stored: StoredTask) -> None:
        board, guard = self.board, stored.guard
        agent: AgentState | None = None
        if guard.status is not TaskStatus.PENDING:
            agent = board.fleet.agents.get(guard.agent_id) or agents.unknown(board, guard.agent_id, guard.session)
        terms = board.terms.of_stored(stored.header)
        if stored.run.priority is not None:
            terms = board.terms.with_priority(terms, stored.run.priority)
        task = restore(stored, terms, agent)
        board.tasks[task.id] = task
        children.restored(board, task, stored.header, stored.run.children)
        if stored.header.sticky is not None:
            board.sticky.wanted[task.id] = stored.header.sticky
        if stored.header.schedule is not None:
            board.schedules.began(stored.header.schedule.id, task.id)
        deadlines.arm_expiry(board, task)
        if agent is None:
            lifecycle.wait(board, task)
        else:
            lifecycle.resume(board, task, agent)
            cancellation.resume(board, task)

    # --- events

    def _take_early(self, event: Timed, claimed: int) -> None:
        """Take an event that claims to be of a later time: who may write to a stream may choose its ids, not the time.

        Or the clock here stands still. So a heartbeat counts from when it says that it was, if that is not far ahead:
        else all agents would be lost at once when the clock goes on.
        """
        board = self.board
        event.at = board.now
        self._take(event)
        agent = board.fleet.agents.get(event.message.agent_id) if isinstance(event, Beat) else None
        if isinstance(event, Beat) and agent is not None and agent.session == event.message.session:
            agent.last_beat = max(agent.last_beat, claimed if claimed - board.now <= AHEAD_MS else board.now)

    def _take(self, event: Event) -> None:
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
                commands.take(board, event)
            case Horizon():
                board.horizon = max(board.horizon, event.at)
            case Blind():
                for agent in board.fleet.agents.values():
                    agent.last_beat += event.duration_ms
            case _:
                self._take_rare(event)

    def _take_rare(self, event: Duplicate | Refused | Found | OfDeadLetters | Strays) -> None:
        match event:
            case Duplicate():
                self._forget_duplicate(event.task_id)
            case Refused():
                self._refuse(event)
            case Found():
                children.found(self.board, event.task_id, event.guard)
            case OfDeadLetters():
                dead_letters.take(self.board, event)
            case Strays():
                self.board.bounds.suspect((event.scope,), event.task_ids)

    def _submit(self, event: Submitted) -> None:
        board = self.board
        if event.task_id in board.tasks:
            task_commands.watch(board, event.task_id, event.header.reply_to)
            board.bounds.suspect(board.bounds.scopes(event.header.capability), (event.task_id,))
            return
        acceptance.accept(board, event.task_id, event.header, event.body, event.at)

    def _refuse(self, event: Refused) -> None:
        board = self.board
        if event.task_id in board.tasks:
            return
        terms = Terms(Requirement("", ""), TaskPriority.MEDIUM, 0, reply_to=event.reply_to)
        stored = board.purged.pop(event.task_id, "")
        task = TaskState(event.task_id, terms, event.at, spec=event.body, stored=stored)
        board.tasks[task.id] = task
        lifecycle.fail(board, task, FailureReason.REJECTED, event.error, event.at)

    def _forget_duplicate(self, task_id: str) -> None:
        task = self.board.live(task_id)
        if task is not None:
            lifecycle.withdraw(self.board, task)
            children.withdrawn(self.board, task)

    # --- placement

    def _place(self) -> None:
        self._unfinished = placement.place(self.board)

    # --- what operators see

    def waits(self, task_id: str) -> bool:
        """Tell whether a task is PENDING."""
        task = self.board.live(task_id)
        return task is not None and task.status is TaskStatus.PENDING

    def why_waiting(self) -> dict[Requirement, str]:
        """Say for each requirement class with waiting tasks why they wait."""
        board = self.board
        return {cls.requirement: why_waiting(board, cls) for cls in board.fleet.classes.values() if cls.waiting}
