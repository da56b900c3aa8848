"""A dispatcher, in a process of its own, that kills itself, or stops, at a certain command to the server.

Every connection of it is looked at, those of its subscribers too. The process is a fork of one that has imported
everything, so that it is there at once.
"""

import asyncio
import logging
import multiprocessing
import os
import signal
from collections import deque
from enum import StrEnum
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final, NamedTuple

from bus.socket_connection import connection_class
from dispatcher.leadership import LEAD, RENEW
from dispatcher.ledger import COMMIT
from dispatcher.observer import SILENT
from dispatcher.service import Dispatcher
from dispatcher.settings import DispatcherSettings

NAME: Final = "doomed"
_SCRIPTS: Final = {COMMIT.sha: "commit", LEAD.sha: "lead", RENEW.sha: "renew"}
_FORKS: Final = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.support.doomed"])


class Moment(StrEnum):
    """When it happens."""

    BEFORE = "before it is sent"
    SENT = "when it is sent, before the reply"
    ANSWERED = "when the reply is there, before it is used"


class Doom(NamedTuple):
    """It dies at the command `name` (a script's name, `release` for a renewal by nothing), the `nth` of its kind."""

    name: str
    nth: int
    moment: Moment
    by: signal.Signals = signal.SIGKILL
    """What it sends to itself; SIGSTOP, and it may be woken again."""

    def __str__(self) -> str:
        return f"{self.name} {self.nth}, {self.moment}"


def start(url: str, pool: str, doom: Doom, log: Path) -> BaseProcess:
    """Start a dispatcher that is doomed. It serves until then, or until SIGTERM, and logs to a file."""
    process = _FORKS.Process(target=_serve, args=(url, pool, doom, log), daemon=True)
    process.start()
    return process


def _serve(url: str, pool: str, doom: Doom, log: Path) -> None:
    logging.basicConfig(filename=log, level=logging.INFO)
    _watch(connection_class(url), doom)
    asyncio.run(_lead(url, pool))


async def _lead(url: str, pool: str) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    settings = DispatcherSettings(redis_url=url, pools=(pool,), dispatcher_id=NAME)
    await Dispatcher(settings, lambda _: SILENT).run(stop)


def _name(command: tuple[Any, ...]) -> str:
    name = str(command[0])
    if name != "EVALSHA":
        return name
    script = _SCRIPTS.get(command[1], "")
    return "release" if script == "renew" and command[-1] == 0 else script


def _watch(kind: type[Any], doom: Doom) -> None:
    """Look at all commands of the process, in pipelines or alone; only those that are sent alone are `ANSWERED`."""
    left = {Moment.BEFORE: doom.nth, Moment.SENT: doom.nth, Moment.ANSWERED: doom.nth}
    pack, send, read, disconnect = kind.pack_command, kind.send_packed_command, kind.read_response, kind.disconnect
    packed: dict[int, list[str]] = {}
    sent: dict[int, deque[str]] = {}

    def passes(moment: Moment, name: str) -> None:
        if name == doom.name:
            left[moment] -= 1
            if moment is doom.moment and not left[moment]:
                os.kill(os.getpid(), doom.by)

    def packing(self: Any, *command: Any) -> list[bytes]:
        passes(Moment.BEFORE, _name(command))
        packed.setdefault(id(self), []).append(_name(command))
        return pack(self, *command)  # type: ignore[no-any-return]

    async def sending(self: Any, *command: Any, **options: Any) -> None:
        await send(self, *command, **options)
        names = packed.pop(id(self), [])
        if len(names) == 1:
            passes(Moment.SENT, names[0])
            sent.setdefault(id(self), deque()).append(names[0])

    async def reading(self: Any, *args: Any, **options: Any) -> Any:
        reply = None
        try:
            reply = await read(self, *args, **options)
        finally:
            waiting = sent.get(id(self))
            name = waiting.popleft() if waiting else ""
        if reply is not None:  # as for a blocked read that brought nothing
            passes(Moment.ANSWERED, name)
        return reply

    async def disconnecting(self: Any, *args: Any, **options: Any) -> None:
        packed.pop(id(self), None)
        sent.pop(id(self), None)
        await disconnect(self, *args, **options)

    kind.pack_command, kind.send_packed_command = packing, sending
    kind.read_response, kind.disconnect = reading, disconnecting
