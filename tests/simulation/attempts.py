"""What an agent of a simulated pool does with its tasks: begins what fits, runs it, reports, stops when it is told.

Its durations are by a clock that may say anything. Its code may put things out, say how it comes along or say nothing,
ask for more time, have children and wait for them, fail in every way there is, and not stop when it should.
"""

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from bus.messages import HandBack, TaskResult, TaskUpdate

if TYPE_CHECKING:
    from tests.simulation.agent import Agent

Key = tuple[str, int]
"""A task and the number of its attempt."""
DEEPEST: Final = 3
EXCLUSIVE: Final = "make"
"""A capability whose tasks must never run twice at once."""
GIVEN_AWAY: Final = frozenset({"agent_lost", "undelivered", "returned", "taken_back"})
"""How attempts end of which the leader says that nobody is at them any more."""
FAILURES: Final[tuple[dict[str, Any], ...]] = (
    {},
    {},
    {"error": {"type": "ValueError", "message": "no"}},
    {"retry_after": 3},
    {"retry_after": 0},
    {"reason": "rejected"},
    {"retryable": False},
)


class Attempts:
    """What one session of an agent has in its hands."""

    def __init__(self, agent: "Agent") -> None:
        self.agent, self.world = agent, agent.world
        self.held: dict[Key, dict[str, Any]] = {}
        """What is not over, begun or not, with its assignment."""
        self.occupied = 0
        """Slots in which code runs that should have stopped."""
        self._running: set[Key] = set()
        self._waiting: set[Key] = set()
        """Those of them that wait for their children."""
        self._returning: list[Key] = []
        """Those whose children have ended, and which go on when there is room."""
        self._stopping: set[Key] = set()
        self._past: set[Key] = set()
        self._slept: set[Key] = set()
        """What was under way when the process slept: it can keep to nothing."""

    # --- taking and giving back

    def take(self, assignment: dict[str, Any]) -> None:
        """Receive an assignment, perhaps once more."""
        key = assignment["task_id"], assignment["attempt"]
        if key not in self._past:
            self.held.setdefault(key, assignment)

    def told(self, message: dict[str, Any]) -> None:
        """Stop an attempt that is cancelled, forget one that is over, hand back one that is recalled."""
        key = message["task_id"], message["attempt"]
        if key not in self.held:
            return
        if message["type"] == "recall":
            if key not in self._running:
                self._hand_back(key)
        elif message["confirm"]:
            self._told_to_stop(key, message["grace"])
        else:
            self._drop(key)

    def _hand_back(self, key: Key) -> None:
        self.world.counts["handed back"] += 1
        self._drop(key)
        self.agent.report(returned=(HandBack(task_id=key[0], attempt=key[1]),))

    def _drop(self, key: Key) -> None:
        self.held.pop(key, None)
        self._running.discard(key)
        self._waiting.discard(key)
        self._past.add(key)

    def wind_up(self) -> bool:
        """Hand back what has not begun; tell whether anything runs still."""
        for key in [key for key in self.held if key not in self._running]:
            self._hand_back(key)
        return bool(self._running)

    def give_up(self) -> None:
        """Stop all that runs."""
        for key in list(self._running):
            self._over(key, status="FAILED", reason="agent_lost")

    # --- exclusive work

    def sleep(self) -> None:
        """Note that the process, or its event loop, can do nothing for a while."""
        self._slept |= self._running

    def stop_exclusive(self) -> None:
        """Stop what must never run twice at once: the lease may be over soon."""
        for key in [key for key in self._running if self._exclusive(key)]:
            self._over(key, status="FAILED", reason="agent_lost")

    def _exclusive(self, key: Key) -> bool:
        return bool(self.held[key]["header"].capability == EXCLUSIVE)

    def _may_begin(self, key: Key) -> bool:
        """Tell whether the ledger, which is asked before exclusive work begins, says that it is still this agent's."""
        record = self.world.ledger.tasks.get(key[0])
        agent = self.agent
        return record is not None and record.guard.endswith(f"/{key[1]}/{agent.id}/{agent.session}")

    def _check_alone(self, key: Key) -> None:
        """Fail if another process that is awake is at exclusive work which the leader has given away."""
        stored = self.world.ledger.read(key[0])
        ended = {past.attempt: past.outcome for past in stored.run.attempts} if stored is not None else {}
        for other in [one for agents in self.world.agents.values() for one in agents if one.runs]:
            for task_id, attempt in other.work.awake:
                given_away = ended.get(attempt) in GIVEN_AWAY
                assert task_id != key[0] or attempt == key[1] or not given_away, (
                    f"{key} is begun by {self.agent.id}, {self.agent.session}, and attempt {attempt} still runs in "
                    f"{other.id}, {other.session}: {ended[attempt]}"
                )
        self.world.counts["exclusive work"] += 1

    @property
    def awake(self) -> set[Key]:
        """What is under way, and was not when the process slept."""
        return self._running - self._slept

    # --- running

    def begin_what_fits(self) -> None:
        """Go on with what has waited for its children, then begin what comes first."""
        while self._returning:
            key = self._returning[0]
            if key in self._waiting and not self._fits(key):
                return
            self._returning.pop(0)
            if key in self._waiting:
                self._waiting.discard(key)
                self.agent.later(self.world.rng.choice((1, 50)), partial(self._end, key))
        if self.agent.leaving:
            return
        for _, key in sorted((message["score"], key) for key, message in self.held.items() if key not in self._running):
            if not self._fits(key):
                break
            if not self._exclusive(key):
                self._begin(key)
            elif self.agent.doubts or not self._may_begin(key):
                self._drop(key)
            else:
                self._check_alone(key)
                self._begin(key)
                if self.world.may(0.3):
                    self.agent.later(self.world.rng.choice((1, 500)), self.agent.double)

    def _fits(self, key: Key) -> bool:
        used: int = self.occupied + sum(self.held[k]["header"].slots for k in self._running - self._waiting)
        wants: int = self.held[key]["header"].slots
        return used + wants <= max(self.agent.slots, wants)  # it may have been given it when it had more

    def _begin(self, key: Key) -> None:
        agent, world, rng = self.agent, self.world, self.world.rng
        assignment = self.held[key]
        self._running.add(key)
        whose = world.begun.setdefault((assignment["birth"], key[1]), (agent.id, agent.session))
        assert whose == (agent.id, agent.session), f"{key} was begun by {whose} and now by {agent.id}"
        world.executions[key[0]] += 1
        if rng.random() < 0.7:
            self._say(key, started_at=rng.choice((None, 0.0, 4e9)))
        lasts = rng.choice((1, 3, 50, 2_000, 6_000))
        depth = 1 + assignment["header"].depth
        if depth <= DEEPEST and rng.random() < 0.15:
            agent.later(min(lasts, 50), lambda: self._have_children(key, depth))
            return
        if lasts > 1_000 and rng.random() < 0.5:
            agent.later(900, lambda: self._come_along(key))
        agent.later(lasts, lambda: self._end(key))

    def _say(self, key: Key, **said: Any) -> None:
        update = TaskUpdate.model_validate({"task_id": key[0], "attempt": key[1], **said})
        self.agent.report(updates=(update,))

    def _come_along(self, key: Key) -> None:
        """Say something each second or so."""
        if key not in self._running:
            return
        self.world.counts["words of running tasks"] += 1
        said = self.world.rng.choice(({"progress": 0.5, "note": "half"}, {"chunk": "a piece"}, {"extend": 4}, {}))
        self._say(key, **said)
        self.agent.later(900, lambda: self._come_along(key))

    def _have_children(self, key: Key, depth: int) -> None:
        if key not in self._running:
            return
        rng = self.world.rng
        clients = self.world.clients
        children = [clients.submit_child(*key, depth, number) for number in range(rng.choice((1, 1, 2, 5)))]
        if rng.random() < 0.3:
            self._end(key)  # perhaps before its children's submissions are read
            return
        self._waiting.add(key)
        self._say(key, waiting=True)
        self.agent.later(20, lambda: self._look(key, children))
        self.begin_what_fits()

    def _look(self, key: Key, children: list[str]) -> None:
        """Go on when the children have ended, or at times before."""
        if key not in self._waiting or key in self._returning:
            return
        ledger = self.world.ledger
        if set(children) <= ledger.ends.keys() | ledger.purged or self.world.rng.random() < 0.005:
            self._say(key, waiting=False)
            self._returning.append(key)
            self.begin_what_fits()
        else:
            self.agent.later(100, lambda: self._look(key, children))

    # --- ending

    def _end(self, key: Key) -> None:
        if key not in self._running:
            return
        rng, agent = self.world.rng, self.agent
        if rng.random() < 0.75:
            self._over(key, status="COMPLETED", output=f"{key[1]}/{agent.id}/{agent.session}")
        else:
            self._over(key, status="FAILED", **rng.choice(FAILURES))

    def _over(self, key: Key, **how: Any) -> None:
        """Report how an attempt ended."""
        self._drop(key)
        lies = 1e7 if self.world.may(0.01) else self.world.rng.choice((0.0, 0.003, 0.003, None))
        result = TaskResult.model_validate({"task_id": key[0], "attempt": key[1], "duration": lies} | how)
        self.agent.report(results=(result,))
        self.begin_what_fits()
        self.agent.leave_when_empty()

    def _told_to_stop(self, key: Key, grace: float | None) -> None:
        """Stop what is cancelled, at once or after a while; some code never does, and runs on when it is given up."""
        rng, world = self.world.rng, self.world
        if key in self._stopping:
            return
        self._stopping.add(key)
        if key not in self._running:
            self._over(key, status="CANCELLED", duration=0.0)
            return
        if rng.random() < 0.5:
            self._say(key, cancel=rng.choice(("delivered", "acknowledged")))
        if world.calm or rng.random() < 0.8:
            self.agent.later(rng.choice((0, 3, 900, 4_000)), lambda: self._stop(key))
        elif grace is not None and rng.random() < 0.5:
            self.agent.later(int(grace * 1000), lambda: self._abandon(key))

    def _stop(self, key: Key) -> None:
        if key in self.held:
            self._over(key, status="CANCELLED", duration=0.0)

    def _abandon(self, key: Key) -> None:
        if key not in self._running:
            return
        self.world.counts["abandoned"] += 1
        slots = self.held[key]["header"].slots
        self.occupied += slots
        self.agent.later(self.world.rng.choice((10, 5_000)), lambda: self._free(slots))
        self._over(key, status="CANCELLED", abandoned=True, duration=0.0)

    def _free(self, slots: int) -> None:
        self.occupied -= slots
        self.begin_what_fits()
