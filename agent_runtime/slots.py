"""What runs and what waits in one agent: never more than `size` at once, the lowest score first.

All of it happens in the event loop, step by step: an attempt leaves the inbox either to be begun, or to be handed back,
or to be dropped, by whichever asks first, and never by two of these.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final

from agent_runtime import outcome
from agent_runtime.execution import Execution
from agent_runtime.inbox import Attempt, AttemptKey, Inbox
from agent_runtime.observer import RuntimeObserver
from agent_runtime.outcome import Outcome
from agent_runtime.pipeline import Pipeline
from agent_runtime.reporter import Reporter
from agent_runtime.tally import Tally
from agent_runtime.turns import Turns

STOPPED_WHILE_RUNNING: Final = "its agent stopped before the task was finished"
TAKEN_BACK: Final = "it was given to another before it was begun"
LEASE_IN_DOUBT: Final = "its agent could not confirm its lease in time, and the capability is exclusive"


class Slots:
    """The account of one agent's slots. Used from the event loop only, the number `occupied` apart.

    `occupied_changed` is called when another slot is found to be occupied, or one is free again.
    """

    def __init__(
        self,
        *,
        size: int,
        inbox: Inbox,
        reporter: Reporter,
        observer: RuntimeObserver,
        occupied_changed: Callable[[], None],
    ) -> None:
        self.size = size
        self.occupied = 0
        """Slots in which code of attempts still runs whose end was reported without it: the leader thinks them free."""
        self._occupied_changed = occupied_changed
        self._inbox = inbox
        self._reporter = reporter
        self._observer = observer
        self._tally = Tally(observer)
        self._turns = Turns(ready=self._ready, following=self._following, waits=self._waits)
        self._pipeline: Pipeline
        self._running: dict[AttemptKey, Execution] = {}
        self._used = 0
        self._away: set[AttemptKey] = set()
        """Attempts that wait for their children, and do not use their slots."""
        self._returning: deque[tuple[Execution, asyncio.Future[None]]] = deque()
        """Attempts that want their slots again, in the order in which they came."""
        self._announced: deque[Execution] = deque()
        """Attempts that have their slots, and begin as soon as they can."""
        self._closed = False
        self._empty = asyncio.Event()
        """Set when nothing runs any more; only looked at by those that wait for it."""
        self.lease_in_doubt = False

    def use(self, pipeline: Pipeline) -> None:
        """Run attempts by `pipeline`, whose `settled` and `ended` are this object's."""
        self._pipeline = pipeline

    @property
    def used(self) -> int:
        """Slots in which code runs now."""
        return self._used

    def receive(self, assignments: Iterable[dict[str, Any]]) -> None:
        """Take what was read: begin what fits, keep the rest. When closed, everything goes back at once."""
        for given in assignments:
            attempt = Attempt(given["task_id"], given["attempt"], given["score"], given["task"], given.get("version"))
            attempt.assigned_at = given.get("assigned_at", 0)
            self._inbox.add(attempt)
        if self._closed:
            self._hand_back()
        else:
            self._turns.wake()

    def close(self) -> None:
        """Begin nothing more: what has not begun goes back, now and later."""
        self._closed = True
        self._hand_back()

    def open(self) -> None:
        """Begin again what is received, after `close`."""
        self._closed = False
        self._turns.wake()

    def resize(self, size: int) -> None:
        """Run at most so many at once from now on; what runs beyond that is left to end."""
        self.size = size
        self._inbox.resize(size)
        self._observer.slots(self._used, size)
        if not self._closed:
            self._turns.wake()

    def hand_back_withdrawn(self) -> None:
        """Hand back what has not begun and is of a capability that the agent offers no more."""
        for attempt in self._inbox.unbegun():
            if self._pipeline.lacks(attempt) and self._inbox.take_back(attempt.key):
                self._reporter.returned(attempt.key)

    def stored(self, keys: Sequence[AttemptKey]) -> None:
        """Stop holding attempts whose end the server has acknowledged; called by the reporter, once for each flush."""
        self._inbox.release(keys)
        self._observer.slots(self._used, self.size)

    def cancel(self, key: AttemptKey, why: str, *, confirm: bool = False, grace: float | None = None) -> None:
        """Stop an attempt, or drop it if it has not begun; unknown ones are ended already.

        With `confirm` it is reported how far that is and what comes of it; its code may take `grace` seconds to stop.
        """
        if not confirm:
            if not self._inbox.withdraw(key) and (execution := self._running.get(key)) is not None:
                execution.stop(outcome.cancelled(why))
        elif self._inbox.take_back(key):
            self._reporter.finished(key, outcome.cancelled(why), 0.0)
        elif (execution := self._running.get(key)) is not None:
            execution.cancel(why, grace)

    def recall(self, key: AttemptKey) -> None:
        """Hand back an attempt that has not begun. Any other has been, or will be, reported as begun or ended."""
        if self._inbox.take_back(key):
            self._reporter.returned(key)

    def cancel_exclusive(self) -> None:
        """Stop all attempts of exclusive capabilities: they may be given to others any moment."""
        self._stop_all(outcome.agent_lost(LEASE_IN_DOUBT), exclusive_only=True)

    def abandon(self) -> None:
        """Stop everything that runs."""
        self._stop_all(outcome.agent_lost(STOPPED_WHILE_RUNNING), exclusive_only=False)

    # --- waiting for children

    def leave(self, key: AttemptKey) -> None:
        """Free the slots of an attempt that waits for its children."""
        execution = self._running.get(key)
        if execution is None or execution.settled or key in self._away:
            return
        self._away.add(key)
        self._used -= execution.attempt.slots
        self._reporter.waiting(key, waits=True)
        self._turns.wake()

    async def come_back(self, key: AttemptKey) -> None:
        """Give an attempt its slots again, as soon as there are enough: before anything new is begun.

        If it is cancelled meanwhile it has them at once, also beyond the size: its code goes on to clean up.
        """
        execution = self._running.get(key)
        if execution is None or key not in self._away:
            return
        self._tell_that_it_goes_on(execution)  # now: the leader shall give nothing new to these slots
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._returning.append((execution, turn))
        self._turns.wake()
        try:
            await turn
        except asyncio.CancelledError:
            self.come_back_at_once(key)
            raise

    def come_back_at_once(self, key: AttemptKey) -> None:
        """Give an attempt its slots again, whether or not they are free."""
        execution = self._running.get(key)
        if execution is not None and key in self._away:
            self._tell_that_it_goes_on(execution)
            self._have_again(execution)

    def _tell_that_it_goes_on(self, execution: Execution) -> None:
        if not execution.settled:
            self._reporter.waiting(execution.attempt.key, waits=False)

    def _have_again(self, execution: Execution) -> None:
        self._away.discard(execution.attempt.key)
        self._used += execution.attempt.slots

    def _let_return(self) -> bool:
        """Let those go on that want their slots again and find them; tell whether none is left."""
        while self._returning:
            execution, turn = self._returning[0]
            wants = not turn.done() and execution.attempt.key in self._away
            if wants and self._used + execution.attempt.slots > self.size:
                return False
            self._returning.popleft()
            if wants:
                self._have_again(execution)
                turn.set_result(None)
        return True

    async def wait_until_empty(self) -> None:
        """Return when no code of any attempt runs."""
        while self._running:
            self._empty.clear()
            await self._empty.wait()

    def settled(self, execution: Execution, found: Outcome, seconds: float) -> None:
        """Report the end of an attempt; called by the pipeline, once for each."""
        attempt = execution.attempt
        if execution.overdue:
            self._occupy(attempt.slots)
        self._reporter.finished(attempt.key, found, seconds)
        self._tally.finished((attempt.task["capability"], found.status, found.reason or ""), seconds)

    def ended(self, execution: Execution) -> None:
        """Free a slot; called by the pipeline when no code of the attempt runs any more."""
        attempt = execution.attempt
        del self._running[attempt.key]
        if attempt.key in self._away:
            self._away.discard(attempt.key)
        else:
            self._used -= attempt.slots
        if execution.overdue:
            self._occupy(-attempt.slots)
        if not self._running and not self._empty.is_set():
            self._empty.set()
        self._turns.wake()

    # --- what begins

    def _ready(self) -> bool:
        """Tell whether an attempt can begin; lets those go on first that want their slots again."""
        if self._announced:
            return True
        if (self._returning and not self._let_return()) or self._closed:
            return False
        # In the order of the scores, strictly: a task of many slots is not starved by small ones behind it.
        head = self._inbox.head()
        return head is not None and self._used + head.slots <= self.size

    def _following(self) -> Execution | None:
        """Return what begins now, and has its slots; None if nothing can."""
        while self._ready():
            if self._announced:
                return self._announced.popleft()
            attempt = self._inbox.take()
            if attempt is None or (execution := self._taken(attempt)) is None:
                continue
            once = attempt.task.get("max_attempts") == 1
            if attempt.key[1] == 1 and not once and not execution.exclusive:
                return execution
            # Earlier attempts may have killed their agent before it could say that they had begun, and the leader
            # counts only what it was told of. So from the second on it is told first: poison comes to an end. The same
            # for a task that may be tried only once, or never runs twice at once: so it is also asked whether it is
            # still this agent's. What may be tried only once waits until the leader has read it, too; anything else
            # would be taken for poison if its agent died in that time again and again.
            self._reporter.started(attempt.key, then=partial(self._begin, execution), read=once)
        return None

    def _taken(self, attempt: Attempt) -> Execution | None:
        """Give an attempt its slots; None if it was handed back instead."""
        if self._pipeline.withdrawn and self._pipeline.lacks(attempt):
            self._reporter.returned(attempt.key)  # it was assigned before the leader knew
            return None
        execution = Execution(self._pipeline, attempt)
        if self.lease_in_doubt and execution.exclusive:
            self._reporter.returned(attempt.key)
            return None
        self._running[attempt.key] = execution
        self._used += attempt.slots
        self._tally.started(attempt.task["capability"])
        return execution

    def _begin(self, execution: Execution, ours: bool) -> None:  # noqa: FBT001 - what the record says of it
        """Begin an attempt that was announced; one that is not ours any more ends without its code."""
        if not ours:
            execution.stop(outcome.agent_lost(TAKEN_BACK))
        self._announced.append(execution)
        self._turns.wake()

    def _waits(self, execution: Execution) -> None:
        """Say that an attempt has begun which is not over at once; others are only said to have ended."""
        if not execution.settled:
            self._reporter.started(execution.attempt.key, execution.seconds)

    def _occupy(self, more: int) -> None:
        self.occupied += more
        self._occupied_changed()

    def _hand_back(self) -> None:
        for key in self._inbox.take_all():
            self._reporter.returned(key)

    def _stop_all(self, verdict: Outcome, *, exclusive_only: bool) -> None:
        for execution in list(self._running.values()):
            if execution.exclusive or not exclusive_only:
                execution.stop(verdict)
