"""What is done to a stage: each fault is a coroutine that strikes, and returns when things are as before.

They are drawn in lanes that do not get into one another's way: two of agents, one of dispatchers, one of the server, and
one of the network. A lane shuffles its faults and goes through them again and again, all by the seed, so that each kind
has its turn as often as any other.
"""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any, Final

from bus.connection import CONNECTION_ERRORS, connect
from tests.chaos.journal import Journal
from tests.chaos.stage import Stage
from tests.support.disk import fill, give_back
from tests.support.processes import paused
from tests.support.waiting import eventually

LEASE_S: Final = 5.0
LEADER_LEASE_S: Final = 3.0
LONG_S: Final = 30.0
RARELY: Final = 0.1
WRITABLE: Final = "callboard-chaos"
INSIST_S: Final = 60.0
TAKE_OVERS: Final = 10
GAP_S: Final = 1.0
STRIKES: Final = 11
"""Of each kind in `PERIOD_S`."""
PERIOD_S: Final = 600.0
WORK_S: Final = 4.0

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


# --- agents


async def agent_killed(strikes: Strikes, stage: Stage, _: Random, victim: str) -> None:
    """SIGKILL of the process in which tasks run; its supervisor starts another with the same id."""
    async with strikes.note("agent killed", victim):
        killed = set(stage.worker_pids(victim))
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        await eventually(lambda: set(stage.worker_pids(victim)) - killed, timeout=60)


async def agent_gone(strikes: Strikes, stage: Stage, random: Random, victim: str) -> None:
    """SIGKILL of supervisor and process; nobody starts it anew until its lease is over."""
    async with strikes.note("agent gone", victim):
        await stage.processes.pop(victim).kill()
        await asyncio.sleep(LEASE_S + 1 + random.random())
        stage.start(victim)
        await stage.processes[victim].wait_for("is signed in")


async def agent_zombie(strikes: Strikes, stage: Stage, random: Random, victim: str) -> None:
    """SIGSTOP beyond its lease; then it goes on with what it believes to have."""
    async with strikes.note("agent stopped beyond its lease", victim):
        pids = stage.worker_pids(victim)
        seconds = LONG_S if random.random() < RARELY else LEASE_S + 1.5 + 2 * random.random()
        await asyncio.gather(*(paused(pid, seconds) for pid in pids))


async def agent_twin(strikes: Strikes, stage: Stage, _: Random, victim: str) -> None:
    """Start a second process with the same id: who signs in later has it, the other ends by itself."""
    async with strikes.note("two agents with one id", victim):
        both = [stage.processes.pop(victim), stage.make(victim).start()]
        try:
            await eventually(lambda: not all(process.running for process in both), timeout=60)
        except AssertionError:
            stage.unexpected.append(f"of two {victim} none has ended: see {both[0].log}")
        stage.processes[victim] = next((process for process in reversed(both) if process.running), both[1])
        for process in both:
            if process is not stage.processes[victim]:
                process.close()


async def agent_cut(strikes: Strikes, stage: Stage, random: Random, victim: str) -> None:
    """Its connections are closed and refused."""
    async with strikes.note("agent without network", victim):
        stage.proxies[victim].cut()
        await asyncio.sleep(random.choice((1.0, LEASE_S + 2)))
        stage.proxies[victim].mend()


async def agent_black_hole(strikes: Strikes, stage: Stage, random: Random, victim: str) -> None:
    """All that it writes or reads is lost, in open connections."""
    async with strikes.note("agent in a black hole", victim):
        stage.proxies[victim].black_hole()
        await asyncio.sleep(random.choice((2.0, LEASE_S + 2)))
        stage.proxies[victim].mend()


async def agent_mute(strikes: Strikes, stage: Stage, random: Random, victim: str) -> None:
    """Lose what it writes."""
    async with strikes.note("agent mute", victim):
        stage.proxies[victim].black_hole(down=False)
        await asyncio.sleep(random.choice((2.0, LEASE_S + 2)))
        stage.proxies[victim].mend()


async def agent_deaf(strikes: Strikes, stage: Stage, random: Random, victim: str) -> None:
    """Lose what it is answered: it writes and does not know whether it was heard."""
    async with strikes.note("agent deaf", victim):
        stage.proxies[victim].black_hole(up=False)
        await asyncio.sleep(random.choice((2.0, LEASE_S + 2)))
        stage.proxies[victim].mend()


# --- dispatchers


async def _leader(stage: Stage) -> str:
    return await stage.leader() or stage.dispatchers[0]


async def leader_killed(strikes: Strikes, stage: Stage, _: Random, _victim: str) -> None:
    """SIGKILL of whoever leads; it is started again."""
    victim = await _leader(stage)
    async with strikes.note("leader killed", victim):
        await stage.processes.pop(victim).kill()
        stage.start(victim)
        await asyncio.sleep(LEADER_LEASE_S + 1)


async def leader_stopped(strikes: Strikes, stage: Stage, _: Random, _victim: str) -> None:
    """SIGTERM: it gives its lead back."""
    victim = await _leader(stage)
    async with strikes.note("leader stopped in order", victim):
        await stage.processes.pop(victim).stop(60)
        stage.start(victim)


async def leader_zombie(strikes: Strikes, stage: Stage, random: Random, _victim: str) -> None:
    """SIGSTOP beyond its lease; then it commits what it had decided, and is refused."""
    victim = await _leader(stage)
    async with strikes.note("leader stopped beyond its lease", victim):
        await paused(stage.processes[victim].pid, LEADER_LEASE_S + 1 + random.random())


async def leader_cut(strikes: Strikes, stage: Stage, random: Random, _victim: str) -> None:
    """Whoever leads loses the network beyond its lease, one way or another."""
    victim = await _leader(stage)
    async with strikes.note("leader without network", victim):
        proxy = stage.proxies[victim]
        way = random.randrange(4)
        if way == 0:
            proxy.cut()
        else:
            proxy.black_hole(up=way != 1, down=way != 2)
        await asyncio.sleep(random.choice((1.5, LEADER_LEASE_S + 2)))
        proxy.mend()


async def take_overs(strikes: Strikes, stage: Stage, random: Random, _victim: str) -> None:
    """Delete the lease ten times in a row: two believe to lead, each time."""
    async with strikes.note("ten take-overs in a row", await _leader(stage)):
        for _ in range(TAKE_OVERS):
            with suppress(*CONNECTION_ERRORS):
                await stage.redis.delete(stage.names.leader)
            await asyncio.sleep(0.2 + 0.3 * random.random())


# --- the server and the network


def _away_s(random: Random) -> float:
    """Return for how many seconds the server is away: now and then longer than the lease of leaders, or all leases."""
    return random.choice((0.3, 0.6, 1.0, 2.0, LEADER_LEASE_S + 1)) if random.random() > RARELY else LEASE_S + 1.5


async def server_killed(strikes: Strikes, stage: Stage, random: Random, _victim: str) -> None:
    """SIGKILL; it comes back with its file."""
    async with strikes.note("server killed", "server"):
        await stage.server.kill()
        await asyncio.sleep(random.choice((0.0, 0.5, 3.0)))
        await stage.server.start()


async def server_silent(strikes: Strikes, stage: Stage, random: Random, _victim: str) -> None:
    """No answer, with open sockets."""
    async with strikes.note("server silent", "server"):
        await paused(stage.server.pid, LONG_S if random.random() < RARELY else _away_s(random))


async def server_without_memory(strikes: Strikes, stage: Stage, random: Random, _victim: str) -> None:
    """`maxmemory` is reached, with what is there or by what comes; then there is memory again."""
    async with strikes.note("server without memory", "server"):
        used = int((await insisted(stage.redis.info, "memory"))["used_memory"])
        await insisted(stage.redis.config_set, "maxmemory", random.choice((1, used, used + 200_000)))
        await asyncio.sleep(_away_s(random))
        await insisted(stage.redis.config_set, "maxmemory", 0)


async def server_without_disk(strikes: Strikes, stage: Stage, random: Random, _victim: str) -> None:
    """Nothing more can be written to its disk, which with `everysec` it says to everybody; then there is room again."""
    async with strikes.note("server without disk", "server"):
        await insisted(stage.redis.config_set, "appendfsync", "everysec")
        await asyncio.to_thread(fill, stage.server.data_dir)
        await asyncio.sleep(_away_s(random))
        give_back(stage.server.data_dir)
        await insisted(stage.redis.set, WRITABLE, "", px=1)
        await insisted(stage.redis.config_set, "appendfsync", "always")


async def server_ended_by_its_disk(strikes: Strikes, stage: Stage, random: Random, _victim: str) -> None:
    """Fill its disk with `always`: it ends itself, since it could not keep its word; it is started when there is room."""
    async with strikes.note("server ended by its disk", "server"):
        await asyncio.to_thread(fill, stage.server.data_dir)
        with suppress(AssertionError):
            await eventually(lambda: not stage.server.running, timeout=5)
        await asyncio.sleep(2 * random.random())
        give_back(stage.server.data_dir)
        if not stage.server.running:
            await stage.server.kill()
            await stage.server.start()


async def scripts_flushed(strikes: Strikes, stage: Stage, _: Random, _victim: str) -> None:
    """SCRIPT FLUSH."""
    async with strikes.note("scripts flushed", "server"):
        await insisted(stage.redis.script_flush)


async def clients_killed(strikes: Strikes, stage: Stage, _: Random, _victim: str) -> None:
    """CLIENT KILL of all."""
    async with (
        strikes.note("clients killed", "server"),
        connect(stage.server.url, name="chaos-killer", max_connections=1) as killer,
    ):
        kill: Any = killer.execute_command
        await insisted(kill, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


async def cut_before_the_reply(strikes: Strikes, stage: Stage, _: Random, _victim: str) -> None:
    """Cut connections when their command is done and its answer is on the way."""
    async with strikes.note("cut before the reply", "network"):
        for proxy in stage.proxies.values():
            proxy.cuts_at_reply += 5
        await asyncio.sleep(1.0)
        for proxy in stage.proxies.values():
            proxy.cuts_at_reply = 0


async def reply_dropped(strikes: Strikes, stage: Stage, _: Random, _victim: str) -> None:
    """Answers are lost, in open connections."""
    async with strikes.note("reply dropped", "network"):
        for proxy in stage.proxies.values():
            proxy.drops_replies += 1
        await asyncio.sleep(6.0)
        for proxy in stage.proxies.values():
            proxy.drops_replies = 0


async def all_mute(strikes: Strikes, stage: Stage, random: Random, _victim: str) -> None:
    """Lose what anybody writes to the server, in open connections."""
    await _one_way(strikes, stage, random, "network lost towards the server", down=False)


async def all_deaf(strikes: Strikes, stage: Stage, random: Random, _victim: str) -> None:
    """Lose what the server answers to anybody, in open connections."""
    await _one_way(strikes, stage, random, "network lost from the server", up=False)


async def _one_way(strikes: Strikes, stage: Stage, random: Random, name: str, **way: bool) -> None:
    async with strikes.note(name, "network"):
        for proxy in stage.proxies.values():
            proxy.black_hole(**way)
        await asyncio.sleep(1.0 + random.random())
        for proxy in stage.proxies.values():
            proxy.mend()


async def slow_network(strikes: Strikes, stage: Stage, _: Random, _victim: str) -> None:
    """200 ms more, each way is half of it."""
    async with strikes.note("200 ms of latency", "network"):
        for proxy in stage.proxies.values():
            proxy.delay = 0.1
        await asyncio.sleep(4.0)
        for proxy in stage.proxies.values():
            proxy.delay = 0.0


OF_AGENTS: Final[tuple[Fault, ...]] = (
    agent_killed,
    agent_gone,
    agent_zombie,
    agent_twin,
    agent_cut,
    agent_black_hole,
    agent_mute,
    agent_deaf,
)
OF_DISPATCHERS: Final[tuple[Fault, ...]] = (leader_killed, leader_stopped, leader_zombie, leader_cut, take_overs)
OF_THE_SERVER: Final[tuple[Fault, ...]] = (
    server_killed,
    server_silent,
    server_without_memory,
)
OF_ITS_DISK: Final[tuple[Fault, ...]] = (server_without_disk, server_ended_by_its_disk)
OF_THE_NETWORK: Final[tuple[Fault, ...]] = (
    scripts_flushed,
    clients_killed,
    cut_before_the_reply,
    reply_dropped,
    all_mute,
    all_deaf,
    slow_network,
)


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

    Together `of` such lanes strike `STRIKES` times of each kind in `PERIOD_S`, as long as that leaves `GAP_S` between
    two of a lane: more would leave no time in which work flows.
    """
    pace = PERIOD_S * of / STRIKES / len(faults)
    due = time.monotonic()
    while True:
        for fault in random.sample(faults, len(faults)):
            due += pace
            gap = max(GAP_S, due - time.monotonic()) * (0.5 + 0.5 * random.random())
            victim = random.choice(victims)
            with suppress(TimeoutError):
                async with asyncio.timeout(gap):
                    await over.wait()
                    return
            if victim:
                # Nobody can lose what he has not: wait for work, though not for ever, since it may be all that is hurt.
                with suppress(AssertionError):
                    await eventually(partial(stage.at_work, victim), timeout=WORK_S)
            await fault(strikes, stage, random, victim)
