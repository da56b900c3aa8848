"""What is done to the server and the network: each fault is a coroutine that returns when things are as before."""

import asyncio
from contextlib import ExitStack, suppress
from random import Random
from typing import Any, Final

from bus.connection import connect
from tests.chaos.auditor import EMPTY, FLUSHED
from tests.chaos.stage import Stage
from tests.chaos.strikes import INSIST_S, LEADER_LEASE_S, LEASE_S, LONG_S, POLL_S, RARELY, Fault, Strikes, insisted
from tests.support.disk import fill, give_back
from tests.support.processes import paused
from tests.support.proxy import Trouble
from tests.support.waiting import eventually

WRITABLE: Final = "callboard-chaos"


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
        try:
            await insisted(stage.redis.config_set, "maxmemory", random.choice((1, used, used + 200_000)))
            await asyncio.sleep(_away_s(random))
        finally:
            await insisted(stage.redis.config_set, "maxmemory", 0)


async def server_without_disk(strikes: Strikes, stage: Stage, random: Random, _victim: str) -> None:
    """Nothing more can be written to its disk, which with `everysec` it says to everybody; then there is room again."""
    async with strikes.note("server without disk", "server"):
        await insisted(stage.redis.config_set, "appendfsync", "everysec")
        try:
            await asyncio.to_thread(fill, stage.server.data_dir)
            await asyncio.sleep(_away_s(random))
        finally:
            give_back(stage.server.data_dir)
        await insisted(stage.redis.set, WRITABLE, "", px=1)
        await _rewrite(stage)
        await insisted(stage.redis.config_set, "appendfsync", "always")


async def _rewrite(stage: Stage) -> None:
    """Have the server write its file anew, as docs/operations.md tells whoever had a full disk.

    Redis opens a file that a rewrite begins without O_APPEND. When it takes back a short write, it goes on behind the
    hole, and could not load that file after its next start.
    """

    async def over() -> bool:
        told = await insisted(stage.redis.info, "persistence")
        return not told["aof_rewrite_in_progress"] and not told["aof_rewrite_scheduled"]

    await eventually(
        over, timeout=INSIST_S, every=POLL_S
    )  # one that is under way may have begun before the file was whole
    await insisted(stage.redis.bgrewriteaof)
    await eventually(over, timeout=INSIST_S, every=POLL_S)


async def server_ended_by_its_disk(strikes: Strikes, stage: Stage, random: Random, _victim: str) -> None:
    """Fill its disk with `always`: it ends itself, since it cannot keep its word; it is started anew later."""
    async with strikes.note("server ended by its disk", "server"):
        try:
            await asyncio.to_thread(fill, stage.server.data_dir)
            with suppress(AssertionError):
                await eventually(lambda: not stage.server.running, timeout=30, every=POLL_S)
            await asyncio.sleep(2 * random.random())
        finally:
            give_back(stage.server.data_dir)
        if not stage.server.running:
            await stage.server.kill()
            await stage.server.start()


async def flushed(strikes: Strikes, stage: Stage, _: Random, _victim: str) -> None:
    """FLUSHALL: everything is lost while the server runs on."""
    async with strikes.note(FLUSHED, "server"):
        await insisted(stage.redis.flushall)


async def restarted_empty(strikes: Strikes, stage: Stage, random: Random, _victim: str) -> None:
    """SIGKILL, and it comes back with nothing."""
    async with strikes.note(EMPTY, "server"):
        await stage.server.kill()
        stage.server.forget()
        await asyncio.sleep(random.choice((0.0, 0.5, 3.0)))
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
    await _of_all(strikes, stage, "cut before the reply", 1.0, cuts_at_reply=5)


async def reply_dropped(strikes: Strikes, stage: Stage, _: Random, _victim: str) -> None:
    """Answers are lost, in open connections."""
    await _of_all(strikes, stage, "reply dropped", 6.0, drops_replies=1)


async def all_mute(strikes: Strikes, stage: Stage, random: Random, _victim: str) -> None:
    """Lose what anybody writes to the server, in open connections."""
    await _of_all(strikes, stage, "network lost towards the server", 1.0 + random.random(), up=True)


async def all_deaf(strikes: Strikes, stage: Stage, random: Random, _victim: str) -> None:
    """Lose what the server answers to anybody, in open connections."""
    await _of_all(strikes, stage, "network lost from the server", 1.0 + random.random(), down=True)


async def slow_network(strikes: Strikes, stage: Stage, _: Random, _victim: str) -> None:
    """200 ms more, each way is half of it."""
    await _of_all(strikes, stage, "200 ms of latency", 4.0, delay=0.1)


async def _of_all(strikes: Strikes, stage: Stage, name: str, seconds: float, **trouble: Any) -> None:
    """Have each party's network in a trouble of its own for so long."""
    async with strikes.note(name, "network"):
        with ExitStack() as troubles:
            for proxy in stage.proxies.values():
                troubles.enter_context(proxy.trouble(Trouble(**trouble)))
            await asyncio.sleep(seconds)


OF_THE_SERVER: Final[tuple[Fault, ...]] = (
    server_killed,
    server_silent,
    server_without_memory,
)
OF_ITS_DATA: Final[dict[str, Fault]] = {"flushall": flushed, "empty": restarted_empty}
"""What the server loses everything by, by the name that the command line has for it."""
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
