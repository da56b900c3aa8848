"""Heeding what the leader asks of a session as a whole: pause, resume, drain, restart.

Instructions have numbers. One that is not newer than the last that was heeded is left out: after a lost connection the
control stream is read from its beginning, and the leader repeats what it does not see confirmed. Each that is heeded is
confirmed by a heartbeat at once.

A pause changes nothing in the agent: the leader gives nothing more, and has asked back what was not begun. A drain and
a restart can be taken back, by a resume or a pause, until the last task has ended; from then on the session is over.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

from agent_runtime.execution import PATIENCE_S
from agent_runtime.exit_codes import ExitCode
from agent_runtime.heartbeat import Standing
from agent_runtime.slots import Slots

LOG: Final = logging.getLogger("callboard.agent")


class Instructions:
    """Used from the event loop only. `tell` takes what heartbeats are to say, `end` ends the session.

    `grace` (seconds) is what running tasks get on a restart that names no deadline.
    """

    def __init__(
        self, slots: Slots, *, grace: float, end: Callable[[ExitCode], None], tell: Callable[[Standing], None]
    ) -> None:
        self._standing = Standing()
        self._slots = slots
        self._grace = grace
        self._end = end
        self._tell = tell
        self._leaving: asyncio.Task[None] | None = None
        self._over = False

    def take(self, message: dict[str, Any]) -> None:
        """Heed an instruction, unless it is not newer than the last."""
        kind: str = message["type"]
        number, before = int(message.get("number", 0)), self._standing
        if number and number <= before.obeys:
            self._tell(before)
            return
        LOG.info("told to %s%s", kind, f": {message['reason']}" if message.get("reason") else "")
        if not self._over:
            self._stop_leaving()
            if kind in ("drain", "restart"):
                self._start_leaving(kind, message.get("within"))
            else:
                self._slots.open()
        paused = {"pause": True, "resume": False}.get(kind, before.paused)
        draining = self._over or self._leaving is not None
        self._standing = Standing(max(number, before.obeys), paused=paused, draining=draining)
        self._tell(self._standing)

    def leave(self) -> None:
        """Take note that the session ends, whoever wanted it: from here on nothing can be taken back."""
        self._over = True
        self._stop_leaving()
        self._standing = self._standing._replace(draining=True)
        self._tell(self._standing)

    def close(self) -> None:
        """Let nothing of it go on."""
        self._over = True
        self._stop_leaving()

    def _start_leaving(self, kind: str, within: float | None) -> None:
        code = ExitCode.RESTART if kind == "restart" else ExitCode.STOPPED
        seconds = self._grace if within is None and code is ExitCode.RESTART else within
        self._slots.close()
        self._leaving = asyncio.create_task(self._leave(code, seconds), name=kind)

    def _stop_leaving(self) -> None:
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None

    async def _leave(self, code: ExitCode, seconds: float | None) -> None:
        """Let what runs end within `seconds`, stop it then, and end the session."""
        if not await self._empty_within(seconds):
            self._slots.abandon()
            await self._empty_within(2 * PATIENCE_S)
        self._leaving = None
        self._end(code)

    async def _empty_within(self, seconds: float | None) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._slots.wait_until_empty()
        except TimeoutError:
            return False
        return True
