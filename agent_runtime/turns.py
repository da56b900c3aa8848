"""Begins attempts: one after another in one asyncio task, for as long as each comes to its end without waiting.

Most of what a short attempt costs is not its code but the task around it: made, scheduled, kept in the set of all
tasks, woken. So attempts take turns in one. The first that waits for something keeps the task for itself, to its end,
and the next begins in a new one: whatever a method hangs on `asyncio.current_task()` (timeouts, groups, cancellation)
finds the same task from the method's first line to its last, and no task that has waited is used again. Each attempt
has a `contextvars` context of its own.

After `SPELL_S` it lets everything else in the event loop have its turn.
"""

import asyncio
import contextvars
import types
from collections.abc import Callable, Coroutine, Generator
from time import monotonic
from typing import Any, Final

from agent_runtime.execution import Execution

SPELL_S: Final = 0.005


class Turns:
    """Begins what `following` returns, until that is None; `waits` is called when one waits for the first time.

    `ready` tells whether `following` would return anything. Used from the event loop only.
    """

    def __init__(
        self,
        *,
        ready: Callable[[], bool],
        following: Callable[[], Execution | None],
        waits: Callable[[Execution], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()
        """What is set around the worker; an attempt's own is made of it, and not of that of the attempt before."""
        self._ready = ready
        self._following = following
        self._waits = waits
        self._task: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """Begin what is ready, soon: never before this returns."""
        if self._task is None and self._ready():
            self._task = self._loop.create_task(self._work(), context=self._context.copy())

    async def _work(self) -> None:
        me = asyncio.current_task()
        assert me is not None  # noqa: S101 - a coroutine that runs is in a task
        until = monotonic() + SPELL_S
        try:
            # A method may have cancelled the task that it ran in, and ended all the same: no other shall pay for that.
            while self._task is me and not me.cancelling() and (execution := self._following()) is not None:
                await _apart(execution.run(me), self._context.copy(), self, execution)
                if monotonic() > until:
                    break
        finally:
            if self._task is me:
                self._pass_on()

    def _kept(self, execution: Execution) -> None:
        """Let the rest begin elsewhere: the task belongs to `execution` from here on."""
        self._waits(execution)
        self._pass_on()

    def _pass_on(self) -> None:
        self._task = None
        self.wake()


@types.coroutine
def _apart(
    work: Coroutine[Any, Any, None], context: contextvars.Context, turns: Turns, execution: Execution
) -> Generator[Any, Any, None]:
    """Run a coroutine in a context of its own."""
    try:
        awaited = context.run(work.send, None)
        turns._kept(execution)  # noqa: SLF001 - a part of it
        while True:
            try:
                sent = yield awaited
            except GeneratorExit:
                context.run(work.close)
                raise
            except BaseException as error:  # noqa: BLE001 - a cancellation, which is the coroutine's
                awaited = context.run(work.throw, error)
            else:
                awaited = context.run(work.send, sent)
    except StopIteration:
        return
