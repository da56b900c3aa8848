"""The leader of a simulated pool: reads, decides with the real scheduler, and stores some passes later, as the engine.

Its memory is ahead of the ledger by the passes that are decided and not yet stored, `BEHIND` at most. What the engine
must do about that is done here in the same way: what was decided of a submission that the ledger knew already is
stripped from those passes (`phantoms`), dead letters are read when nothing is left to be stored, and the horizon ends
before what is read and not stored. What befalls it: it dies between a pass and its commit, or between two calls of one
commit; it is out for a while, and blind; its clock stands still.
"""

from collections.abc import Set as AbstractSet
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bus.messages import PurgeDead, RequeueDead
from bus.states import TaskStatus
from dispatcher.core.decisions import Decisions
from dispatcher.core.events import (
    Beat,
    Blind,
    Commanded,
    Duplicate,
    Event,
    Found,
    Horizon,
    OfDeadLetters,
    Reported,
    SignedIn,
    SignedOut,
    Strays,
)
from dispatcher.core.record import restore_agent
from dispatcher.core.scheduler import Scheduler
from dispatcher.revival import speaks_of_the_dead
from tests.simulation import consistency
from tests.simulation.invariants import Invariants

if TYPE_CHECKING:
    from tests.simulation.simulation import Inbound, Simulation

BEHIND: Final = 3
"""Passes that may be decided and not stored: one that is, one that waits for it, and one that waits to be handed on."""
TICK_MS: Final = 600
BLIND_AFTER_MS: Final = 1_000
SETTLED: Final = 10_000
"""Passes in which a leader must be through with all that is due at one instant."""

FROM_AGENTS: Final = (Reported, Beat, SignedIn, SignedOut)

Letter = tuple[int, "Inbound"]
"""A message with the time of its entry."""


@dataclass(slots=True)
class Pass:
    """What was decided, of what, and which submissions the scheduler has heard by then that were none."""

    decisions: Decisions
    letters: list[Letter]
    withdrawn: AbstractSet[str]


class Leader:
    """Whoever leads now: one after the other."""

    def __init__(self, world: "Simulation") -> None:
        self.world = world
        self._inbound: list[Letter] = []
        self.term = 0
        self._wakes = 0
        self._begin()

    def _begin(self) -> None:
        """Take the lead, with nothing but what is stored."""
        world, ledger = self.world, self.world.ledger
        self.term += 1
        self._undone: list[Pass] = []
        self._extra: list[Event] = []
        self._phantoms: set[str] = set()
        self._last_contact = world.now
        self._still: tuple[int, int] | None = None
        self._out_until = 0
        self._slow = world.rng.choice((0.0, 0.3, 0.9))
        """How likely a pass is not stored at once."""
        self._horizon = 0
        self.scheduler = Scheduler(world.config, seed=world.rng.randrange(1_000))
        fleet = [restore_agent(record, world.now) for record in ledger.agents.values()]
        live = ledger.live()
        held = [stored for stored in live if stored.guard.status is not TaskStatus.PENDING]
        self.scheduler.begin_loading()
        self.scheduler.load(fleet, held, world.now, ledger.noted())
        self._unloaded = [stored for stored in live if stored.guard.status is TaskStatus.PENDING]
        self._page = world.rng.choice((1, 3, 1_000))
        self._load()
        self._invariants = Invariants(world, self.scheduler.board)

    @property
    def busy(self) -> bool:
        """True while anything is unread, or to be stored, or to be done at once."""
        due = self.scheduler.next_due
        at_once = due is not None and due <= self.world.now
        return bool(self._inbound or self._undone or self._extra or self.scheduler.board.loading or at_once)

    def _load(self) -> None:
        """Load a page of what waits. Some of it may have been told already: pages are read ahead, and overlap."""
        page, self._unloaded = self._unloaded[: self._page], self._unloaded[self._page :]
        self._again = page
        self.scheduler.load((), page, self.world.now)
        if not self._unloaded:
            self.scheduler.loaded()
        else:
            self.world.counts["passes while loading"] += 1
            self._wake(self.world.rng.choice((0, 5, 50)))

    @property
    def settled(self) -> bool:
        """True when the ledger has what the scheduler has: nothing is on its way, and nothing to be taken back."""
        return not self._undone and not any(isinstance(event, Duplicate) for event in self._extra)

    # --- when

    def receive(self, event: "Inbound") -> None:
        """Take an entry into a stream; it is read some time later."""
        self._inbound.append((self.world.now, copy(event)))
        self._wake(self.world.rng.choice((0, 1, 5, 5, 40)))

    def _wake(self, delay: int) -> None:
        self._wakes += 1
        self.world.at(delay, self._awake)

    def _awake(self) -> None:
        self._wakes -= 1
        world = self.world
        if self._out_until > world.now:
            self._wake(self._out_until - world.now)
            return
        if world.may(0.000_5):
            world.counts["leaders that were out"] += 1
            self._out_until = world.now + world.rng.choice((900, 4_000))
            self._wake(self._out_until - world.now)
            return
        self._lead()
        due = self.scheduler.next_due
        if not self._wakes and due is not None:
            self._wake(max(0, min(due - self.scheduler.board.now, TICK_MS)))  # by a clock that may stand still

    def _clock(self) -> int:
        """Return the time as this leader has it: now and then its clock stands still, and then leaps."""
        now, still = self.world.now, self._still
        if still is None and self.world.may(0.000_5):
            self.world.counts["clocks that stood still"] += 1
            still = self._still = now, now + self.world.rng.choice((300, 2_000, 8_000))
        if still is not None and now < still[1]:
            return still[0]
        self._still = None
        return now

    # --- deciding

    def _lead(self) -> None:
        world = self.world
        keep = world.rng.randrange(3) if world.rng.random() < 0.1 else 0  # what this read does not bring
        cut = len(self._inbound) - keep
        letters, self._inbound = self._inbound[: max(0, cut)], self._inbound[max(0, cut) :]
        if self.scheduler.board.loading:  # clients are not listened to yet
            self._inbound = [one for one in letters if not isinstance(one[1], FROM_AGENTS)] + self._inbound
            letters = [one for one in letters if isinstance(one[1], FROM_AGENTS)]
            self.scheduler.load((), self._again, self._clock())
            self._load()
        of_the_dead = speaks_of_the_dead(event for _, event in letters)
        while len(self._undone) >= BEHIND or (of_the_dead and self._undone):
            self._store_next()
        events = self._events(letters)
        decisions = self.scheduler.step(events, self._clock())
        seen = self.scheduler.board.horizon
        assert seen <= self._horizon, f"the scheduler looks up to {seen}, and all is read up to {self._horizon}"
        quiet = all(isinstance(event, Beat | Horizon) for event in events)
        self._invariants.after_pass(decisions, quiet=quiet)
        withdrawn = {event.task_id for event in events if isinstance(event, Duplicate)}
        self._undone.append(Pass(decisions, letters, withdrawn))
        if world.may(0.1 if len(decisions.changes) > 2 else 0.002):
            self._die()
            return
        term = self.term
        if world.rng.random() < self._slow:
            world.counts["passes stored later"] += 1
            world.at(world.rng.choice((1, 5, 30, 100)), lambda: self._store_all(term))
        else:
            self._store_all(term)

    def _events(self, letters: list[Letter]) -> list[Event]:
        """Return what a pass takes: what others asked for, the messages with their times, and the horizon."""
        events, self._extra = self._extra, []
        gap = self.world.now - self._last_contact
        if gap > BLIND_AFTER_MS:
            events.append(Blind(gap))
        self._last_contact = self.world.now
        for at, event in letters:
            event.at = at
            if isinstance(event, Commanded) and isinstance(event.command, RequeueDead | PurgeDead):
                found = {one: stored for one in event.command.task_ids if (stored := self.world.ledger.read(one))}
                events.append(OfDeadLetters(event.command, found, at))
            else:
                events.append(event)
        unstored = [letter for undone in self._undone for letter in undone.letters]
        left = [at for at, event in (*unstored, *self._inbound) if isinstance(event, FROM_AGENTS)]
        self._horizon = max(self._horizon, min([self.world.now, *left]) - 1)
        events.append(Horizon(self._horizon))
        events += self._strays()
        return events

    def _strays(self) -> list[Event]:
        """Suspect tasks of counting for a bound and not waiting, at times: none that waits is to be taken out."""
        board, world = self.scheduler.board, self.world
        if not board.bounds.in_force or not world.may(0.02):
            return []
        world.counts["strays"] += 1
        known = sorted(board.tasks)
        ids = world.rng.sample(known, min(3, len(known)))
        return [Strays(world.rng.choice(sorted(board.bounds.in_force)), (*ids, "default.unheard-of"))]

    # --- storing

    def _store_all(self, term: int) -> None:
        """Store what is decided, unless another leads by now."""
        while self.term == term and self._undone:
            self._store_next()

    def _store_next(self) -> None:
        world, work = self.world, self._undone.pop(0)
        decisions = self._stripped(work)
        world.ledger.now = world.now
        known = world.ledger.commit(decisions)
        world.counts["known submissions"] += len(known)
        self._phantoms.update(known)
        self._extra += [Duplicate(task_id) for task_id in known]
        for task_id in decisions.inquiries:
            record = world.ledger.tasks.get(task_id)
            self._extra.append(Found(task_id, record.guard if record else ""))
        if self._extra:
            self._wake(world.rng.choice((0, 5)))
        if len(decisions):
            consistency.check_ledger(world)
        if len(decisions) and self.settled and not self.scheduler.board.loading:
            consistency.check_agreement(self.scheduler.board, world.ledger)
            changed = [change.task_id for change in decisions.changes]
            consistency.check_restored(self.scheduler.board, world.ledger, changed)
            asked = {event.task_id for event in self._extra if isinstance(event, Found)}
            consistency.check_orphans(self.scheduler.board, world.ledger, asked)

    def _stripped(self, work: Pass) -> Decisions:
        """Return the decisions of a pass without what concerns tasks that had ended long ago."""
        self._phantoms -= work.withdrawn
        if not self._phantoms:
            return work.decisions
        self.world.counts["phantoms"] += sum(one.task_id in self._phantoms for one in work.decisions.changes)
        return work.decisions.without(self._phantoms)

    def _die(self) -> None:
        """Let another lead: some passes are stored, of the next a part, and all that this was about is read again."""
        world = self.world
        world.counts["leaders that died"] += 1
        for _ in range(world.rng.randrange(len(self._undone))):
            self._store_next()
        decisions = self._stripped(self._undone[0])
        first = world.rng.randrange(max(1, len(decisions.changes)))  # the last call stores all the rest
        if first:
            world.counts["commits cut short"] += 1
            world.ledger.now = world.now
            world.ledger.commit(decisions, first=first)
        self._inbound = [letter for undone in self._undone for letter in undone.letters] + self._inbound
        self._begin()
        self._wake(world.rng.choice((0, 3_000)))

    # --- the end

    def settle(self) -> None:
        """Let the leader do all that is due now, when nobody says anything any more."""
        for _ in range(SETTLED):
            self._last_contact = self.world.now  # it has not been blind: they were silent
            self._lead()
            self._store_all(self.term)
            if not self.busy:
                return
        raise AssertionError("there is always something due")
