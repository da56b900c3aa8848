"""What is done to a stage: each fault is a coroutine that strikes, and returns when things are as before.

They are drawn in lanes that do not get into one another's way: two of agents, one of dispatchers, one of the server and
the network. A lane shuffles its faults and goes through them again and again, all by the seed.
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
from typing import Final

from bus.connection import CONNECTION_ERRORS, connect
from tests.chaos.journal import Journal
from tests.chaos.stage import Stage
from tests.support.processes import paused
from tests.support.waiting import eventually

LEASE_S: Final = 5.0
LEADER_LEASE_S: Final = 3.0
TAKE_OVERS: Final = 10
GAP_S: Final = 2.0
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
        await asyncio.gather(*(paused(pid, LEASE_S + 1.5 + 2 * random.random()) for pid in pids))


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
            await asyncio.sleep(0.3 + random.random())


# --- the server and the network


async def server_killed(strikes: Strikes, stage: Stage, random: Random, _victim: str) -> None:
    """SIGKILL; it comes back with its file."""
    async with strikes.note("server killed", "server"):
        await stage.server.kill()
        await asyncio.sleep(random.choice((0.0, 0.5, 3.0)))
        await stage.server.start()


async def server_silent(strikes: Strikes, stage: Stage, random: Random, _victim: str) -> None:
    """No answer, with open sockets."""
    async with strikes.note("server silent", "server"):
        await paused(stage.server.pid, random.choice((1.5, 4.0, 8.0)))


async def scripts_flushed(strikes: Strikes, stage: Stage, _: Random, _victim: str) -> None:
    """SCRIPT FLUSH."""
    async with strikes.note("scripts flushed", "server"):
        with suppress(*CONNECTION_ERRORS):
            await stage.redis.script_flush()


async def clients_killed(strikes: Strikes, stage: Stage, _: Random, _victim: str) -> None:
    """CLIENT KILL of all."""
    async with strikes.note("clients killed", "server"):
        with suppress(*CONNECTION_ERRORS):
            async with connect(stage.server.url, name="chaos-killer", max_connections=1) as killer:
                await killer.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")  # type: ignore[no-untyped-call]


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
    scripts_flushed,
    clients_killed,
    cut_before_the_reply,
    reply_dropped,
    slow_network,
)


async def lane(
    faults: tuple[Fault, ...], victims: list[str], strikes: Strikes, stage: Stage, random: Random, over: asyncio.Event
) -> None:
    """Strike again and again until it is `over`, with about `GAP_S` seconds between two; the faults in turns."""
    while True:
        for fault in random.sample(faults, len(faults)):
            gap, victim = GAP_S * (0.5 + random.random()), random.choice(victims)
            with suppress(TimeoutError):
                async with asyncio.timeout(gap):
                    await over.wait()
                    return
            if victim:
                # Nobody can lose what he has not: wait for work, though not for ever, since it may be all that is hurt.
                with suppress(AssertionError):
                    await eventually(partial(stage.at_work, victim), timeout=WORK_S)
            await fault(strikes, stage, random, victim)
