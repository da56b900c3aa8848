"""What is done to agents and dispatchers: each fault is a coroutine that returns when things are as before."""

import asyncio
import os
import signal
from contextlib import suppress
from random import Random
from typing import Final

from bus.connection import CONNECTION_ERRORS
from tests.chaos.stage import Stage
from tests.chaos.strikes import LEADER_LEASE_S, LEASE_S, LONG_S, PATIENCE_S, POLL_S, RARELY, Fault, Strikes
from tests.support.processes import paused
from tests.support.proxy import Trouble
from tests.support.waiting import eventually

TAKE_OVERS: Final = 10


# --- agents


async def agent_killed(strikes: Strikes, stage: Stage, _: Random, victim: str) -> None:
    """SIGKILL of the process in which tasks run; its supervisor starts another with the same id."""
    async with strikes.note("agent killed", victim):
        killed = set(stage.worker_pids(victim))
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        await eventually(lambda: set(stage.worker_pids(victim)) - killed, timeout=PATIENCE_S, every=POLL_S)


async def agent_gone(strikes: Strikes, stage: Stage, random: Random, victim: str) -> None:
    """SIGKILL of supervisor and process; nobody starts it anew until its lease is over."""
    async with strikes.note("agent gone", victim):
        await stage.processes.pop(victim).kill()
        await asyncio.sleep(LEASE_S + 1 + random.random())
        stage.start(victim)
        await stage.processes[victim].wait_for("is signed in", timeout=PATIENCE_S, every=POLL_S)


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
            await eventually(lambda: not all(process.running for process in both), timeout=PATIENCE_S, every=POLL_S)
        except AssertionError:
            stage.unexpected.append(f"of two {victim} none has ended: see {both[0].log}")
        stage.processes[victim] = next((process for process in reversed(both) if process.running), both[1])
        for process in both:
            if process is not stage.processes[victim]:
                process.close()


async def agent_cut(strikes: Strikes, stage: Stage, random: Random, victim: str) -> None:
    """Its connections are closed and refused."""
    async with strikes.note("agent without network", victim):
        with stage.proxies[victim].trouble(Trouble(cut=True)):
            await asyncio.sleep(random.choice((1.0, LEASE_S + 2)))


async def agent_black_hole(strikes: Strikes, stage: Stage, random: Random, victim: str) -> None:
    """All that it writes or reads is lost, in open connections."""
    async with strikes.note("agent in a black hole", victim):
        with stage.proxies[victim].trouble(Trouble(up=True, down=True)):
            await asyncio.sleep(random.choice((2.0, LEASE_S + 2)))


async def agent_mute(strikes: Strikes, stage: Stage, random: Random, victim: str) -> None:
    """Lose what it writes."""
    async with strikes.note("agent mute", victim):
        with stage.proxies[victim].trouble(Trouble(up=True)):
            await asyncio.sleep(random.choice((2.0, LEASE_S + 2)))


async def agent_deaf(strikes: Strikes, stage: Stage, random: Random, victim: str) -> None:
    """Lose what it is answered: it writes and does not know whether it was heard."""
    async with strikes.note("agent deaf", victim):
        with stage.proxies[victim].trouble(Trouble(down=True)):
            await asyncio.sleep(random.choice((2.0, LEASE_S + 2)))


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
        await stage.processes.pop(victim).stop(PATIENCE_S)
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
        ways = (Trouble(cut=True), Trouble(down=True), Trouble(up=True), Trouble(up=True, down=True))
        with stage.proxies[victim].trouble(random.choice(ways)):
            await asyncio.sleep(random.choice((1.5, LEADER_LEASE_S + 2)))


async def take_overs(strikes: Strikes, stage: Stage, random: Random, _victim: str) -> None:
    """Delete the lease ten times in a row: two believe to lead, each time."""
    async with strikes.note("ten take-overs in a row", await _leader(stage)):
        for _ in range(TAKE_OVERS):
            with suppress(*CONNECTION_ERRORS):
                await stage.redis.delete(stage.names.leader)
            await asyncio.sleep(0.2 + 0.3 * random.random())


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
