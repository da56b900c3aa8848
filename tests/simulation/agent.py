"""An agent of a simulated pool, as the runtime is one: signs in, beats, reads, heeds what it is told, and leaves.

What it does with its tasks is in `attempts`. What befalls it: it is killed, freezes and wakes as a zombie, another
process takes its id, its event loop is blocked while its heart beats, it leaves without having been asked; entries
escape it, or come twice. One that is awake keeps to its lease: it stops what is exclusive before that may be over.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from bus.messages import Heartbeat, Register, Report, Unregister
from bus.overrides import Overrides
from dispatcher.core.events import Beat, Reported, SignedIn, SignedOut
from tests.simulation.attempts import EXCLUSIVE, Attempts

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

LEASE_MS: Final = 5_000
BEAT_MS: Final = 1_000
LEASE_MARGIN_MS: Final = 500
WATCH_MS: Final = 100
RETRY: Final = {"base": 0.1, "cap": 1}
"""How tasks of a capability are to be tried again that do not say it themselves."""
FAITHFUL: Final = "a0"
"""It always comes back, and could do every task."""
PICKY: Final = "a1"
GPUS: Final = (FAITHFUL, PICKY)
"""Who has a resource, and is in the zone that some tasks ask for."""


class Agent:
    """One agent through all its lives."""

    def __init__(self, world: "Simulation", agent_id: str, *, slots: int) -> None:
        self.world = world
        self.id = agent_id
        self._slots = slots
        self.session = ""
        self._lives = 0
        self._dead = False
        world.at(world.rng.randrange(2_000), self._begin)

    # --- a life

    def _begin(self) -> None:
        self._lives += 1
        self._dead = False
        self.session = f"s{next(self.world.sessions)}"
        self.work = Attempts(self)
        self.leaving = False
        self._stopped = False
        self._read_until = self._heard_until = 0
        self._obeys = 0
        self._paused = False
        self._updated = 0
        self._overrides = Overrides()
        self._frozen_until = self._blocked_until = self._deaf_until = self._mute_until = 0
        self._confirmed = self.world.now
        self._awake = False
        self._register()
        self.later(BEAT_MS // 2, self._beat, blocked=False)
        self.later(WATCH_MS, self._watch_lease)
        self.wake()
        if not self.world.calm:
            self.later(self.world.rng.randrange(5_000, 40_000), self._misfortune)
            self.later(self.world.rng.randrange(1_000, 20_000), self._say_it_again)

    @property
    def slots(self) -> int:
        """As its process, or an operator, says."""
        return self._overrides.slots or self._slots

    def later(self, delay: int, what: Callable[[], None], *, blocked: bool = True) -> None:
        """Do `what` later: in this life, and when not frozen, nor `blocked`."""
        life = self._lives

        def then() -> None:
            now = self.world.now
            if self._lives != life or self._stopped or self.world.over:
                return
            until = max(self._frozen_until, self._blocked_until if blocked else 0)
            if until > now:
                self.later(until - now, what, blocked=blocked)
                return
            what()

        self.world.at(delay, then)

    @property
    def runs(self) -> bool:
        """Whether its process lives and has not been told to end."""
        return bool(self.session) and not self._stopped and not self._dead

    @property
    def doubts(self) -> bool:
        """Whether its lease may be over soon."""
        return self.world.now >= self._confirmed + LEASE_MS - LEASE_MARGIN_MS

    def _watch_lease(self) -> None:
        if self.doubts:
            self.work.stop_exclusive()
        self.later(WATCH_MS, self._watch_lease)

    def _freeze(self, ms: int) -> None:
        self._frozen_until = self.world.now + ms
        self.work.sleep()

    def double(self) -> None:
        """Let another process have its id: it works on until it hears of that, or doubts its lease."""
        world, rng = self.world, self.world.rng
        world.counts["agents doubled"] += 1
        self._deaf_until = world.now + rng.choice((0, 3_000, 9_000))
        self._mute_until = rng.choice((0, self._deaf_until))
        world.hire(self.id, self._slots)

    def _misfortune(self) -> None:
        world, rng = self.world, self.world.rng
        if world.calm:
            return
        kind = rng.choice(("killed", "killed", "frozen", "frozen", "blocked", "replaced", "left", "left for good"))
        world.counts[f"agents {kind}"] += 1
        match kind:
            case "killed":
                self._end_life()  # nothing more of this life happens
            case "frozen":
                self._freeze(rng.choice((1_000, 9_000)))
            case "replaced":  # another process has its id, while it is frozen and holds its tasks
                self._freeze(rng.choice((500, 3_000, 9_000)))
                world.hire(self.id, self._slots)
            case "blocked":
                self._blocked_until = world.now + rng.choice((1_000, 15_000))
                self.work.sleep()  # what is under way cannot be cancelled
                self._beat_now()
            case _:
                self._sign_out(forget=kind == "left for good")
        self.later(rng.randrange(5_000, 30_000), self._misfortune)

    def _end_life(self) -> None:
        self._lives += 1
        self._dead = True
        if self.id == FAITHFUL or self.world.calm or self.world.rng.random() < 0.7:  # some never come back
            self.world.at(self.world.rng.choice((10, 200, 500, 8_000)), self._begin)

    # --- what it says

    def _register(self) -> None:
        wide = {"gpu": 2} if self.id in GPUS else {}
        rate = self.world.rates.of_capability.get("do")
        capabilities: list[dict[str, Any]] = [
            {"name": "do", "rate": rate, "concurrency": self._slots + 3 if self.id == PICKY else None},
            {"name": EXCLUSIVE, "max_pending": 3 if self.id == PICKY else None, "exclusive": True, "retry": RETRY},
        ]
        attributes = {"zone": "eu" if self.id in GPUS else "us"} | self._overrides.attributes
        message = {
            "agent_id": self.id,
            "session": self.session,
            "capabilities": [one for one in capabilities if one["name"] not in self._overrides.disabled],
            "slots": self.slots,
            "resources": wide,
            "attributes": attributes,
            "rate": self.world.rates.of_agent.get(self.id),
            "accepts": "fairness_key != batch" if self.id == PICKY else (),
            "lease": LEASE_MS / 1000,
            "update": self._updated,
        }
        self.world.send(SignedIn(Register.model_validate(message), self.world.now))

    def _say_it_again(self) -> None:
        if not self.world.calm:
            self.world.counts["registrations of the same session"] += 1
            self._register()
            self.later(self.world.rng.randrange(1_000, 20_000), self._say_it_again)

    def _beat(self) -> None:
        self._beat_now()
        self.later(BEAT_MS, self._beat, blocked=False)

    def _beat_now(self) -> None:
        message = Heartbeat(
            agent_id=self.id,
            session=self.session,
            holding=tuple(self.work.held),
            occupied=self.work.occupied,
            obeys=self._obeys,
            paused=self._paused,
            draining=self.leaving,
            updated=self._updated,
            lag=3.0 if self._blocked_until > self.world.now else 0.0,
        )
        if self._mute_until <= self.world.now and self.world.send(Beat(message, self.world.now)):
            self._confirmed = self.world.now

    def report(self, **parts: Any) -> None:
        """Tell how tasks are coming along."""
        self.world.send(Reported(Report(agent_id=self.id, session=self.session, **parts), self.world.now))

    def _sign_out(self, *, forget: bool = False) -> None:
        message = Unregister(agent_id=self.id, session=self.session, forget=forget)
        self.world.send(SignedOut(message, self.world.now))
        self._end_life()

    def leave_when_empty(self) -> None:
        """Hand back what has not begun; with nothing in its hands, sign out, and begin anew later."""
        if self.leaving and not self.work.wind_up():
            self._sign_out()

    # --- what it reads

    def wake(self) -> None:
        """Read its streams after a while: there is something new."""
        if self.session and not self._awake:
            self._awake = True
            self.later(self.world.rng.choice((5, 20, 100, 300)), self._read)

    def _read(self) -> None:
        world, ledger = self.world, self.world.ledger
        if self._deaf_until > world.now:
            self.later(self._deaf_until - world.now, self._read)
            return
        self._awake = False
        if world.rng.random() < 0.02:
            self._read_until = 0  # the connection was lost: it reads from the beginning, and drops what it knows
        if world.may(0.02):
            self._heard_until = 0
        for number, message in list(ledger.assignments.get(self.id, {}).items()):
            if number > self._read_until and message["session"] == self.session and not world.may(0.01):
                self.work.take(message)
            self._read_until = max(self._read_until, number)
        for number, message in list(ledger.control.get(self.id, {}).items()):
            new = number > self._heard_until
            self._heard_until = max(self._heard_until, number)
            if new and message["session"] == self.session and not world.may(0.02):
                self._instructed(message)
        self.work.begin_what_fits()
        self.leave_when_empty()

    def _instructed(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "reregister":
                self._register()
            case "superseded":
                self._stopped = True
            case "cancel" | "recall":
                self.work.told(message)
            case "update" if message["number"] > self._updated:
                self._updated = message["number"]
                self._overrides = Overrides.model_validate(message["overrides"])
                self._register()
            case "pause" | "resume" | "drain" | "restart" as kind if message["number"] > self._obeys:
                self._obeys = message["number"]
                self._paused = {"pause": True, "resume": False}.get(kind, self._paused)
                self.leaving = kind in ("drain", "restart")
                if self.leaving and message["within"] is not None:
                    self.later(int(message["within"] * 1000), partial(self._give_up, self._obeys))
                self._beat_now()
            case _:
                pass

    def _give_up(self, number: int) -> None:
        """Stop what runs at the deadline of a drain, unless another instruction came since."""
        if self.leaving and self._obeys == number:
            self.work.give_up()
            self.leave_when_empty()
