"""What was done to a stage, and the lanes in which it is done.

Each fault is a coroutine that strikes, and returns when things are as before. They are drawn in lanes that do not get
into one another's way: two of agents, one of dispatchers, one of the server, and one of the network. A lane shuffles
its faults and goes through them again and again, all by the seed, so that each kind has its turn as often as any other;
one that met no work is repeated in the next round.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any, Final

from bus.connection import CONNECTION_ERRORS
from tests.chaos.journal import Journal
from tests.chaos.stage import Stage
from tests.support.waiting import eventually

LEASE_S: Final = 5.0
LEADER_LEASE_S: Final = 3.0
LONG_S: Final = 30.0
RARELY: Final = 0.1
"""How often a fault lasts very long."""
INSIST_S: Final = 180.0
PATIENCE_S: Final = 180.0
"""How long processes may take to start and to sign in, on a machine that has no time."""
POLL_S: Final = 0.1
GAP_S: Final = 1.0
STRIKES: Final = 12
"""Of each kind in `PERIOD_S`."""
PERIOD_S: Final = 600.0
WORK_S: Final = 8.0
"""How long a strike waits for work to strike at."""

Fault = Callable[["Strikes", Stage, Random, str], Awaitable[None]]


@dataclass
class Strike:
    """A fault at work: what, whom, from when to when by the monotonic clock."""

    fault: str
    victim: str
    began: float
    ended: float = float("inf")


@dataclass
class Strikes:
    """All that was done."""

    journal: Journal
    done: list[Strike] = field(default_factory=list)

    @asynccontextmanager
    async def note(self, fault: str, victim: str) -> AsyncIterator[Strike]:
        """Note a strike while the block runs."""
        strike = Strike(fault, victim, time.monotonic())
        self.done.append(strike)
        self.journal.write("strike", fault=fault, victim=victim)
        try:
            yield strike
        finally:
            strike.ended = time.monotonic()
            self.journal.write("over", fault=fault, victim=victim)


async def insisted(command: Callable[..., Awaitable[Any]], *arguments: Any, **options: Any) -> Any:
    """Return what the server answers to a command, when it does: another fault may be at work."""
    async with asyncio.timeout(INSIST_S):
        while True:
            try:
                return await command(*arguments, **options)
            except CONNECTION_ERRORS:
                await asyncio.sleep(0.05)


async def lane(
    faults: tuple[Fault, ...],
    victims: list[str],
    strikes: Strikes,
    stage: Stage,
    random: Random,
    over: asyncio.Event,
    *,
    of: int = 1,
) -> None:
    """Strike again and again until it is `over`; the faults in turns.

    `victims` are agents, or one empty name for whoever is struck by these faults. Together `of` such lanes strike
    `STRIKES` times of each kind in `PERIOD_S`, as long as that leaves `GAP_S` between two of a lane: more would leave
    no time in which work flows.
    """
    pace = PERIOD_S * of / STRIKES / len(faults)
    due = time.monotonic()
    missed: list[Fault] = []
    while True:
        again, missed = missed, []
        for fault in random.sample([*faults, *again], len(faults) + len(again)):
            due += pace
            gap = max(GAP_S, due - time.monotonic()) * (0.5 + 0.5 * random.random())
            victim = random.choice(victims)
            with suppress(TimeoutError):
                async with asyncio.timeout(gap):
                    await over.wait()
                    return
            # Nobody can lose what he has not: wait for work, though not for ever, since it may be all that is hurt.
            try:
                await eventually(partial(stage.at_work, victim), timeout=WORK_S, every=POLL_S)
            except AssertionError:
                missed.append(fault)
            try:
                await fault(strikes, stage, random, victim)
            except (AssertionError, TimeoutError) as error:
                stage.unexpected.append(f"{fault.__name__} of {victim or 'all'} has not ended well: {error!r}")
