"""What an agent has announced and the leader has not read yet, of tasks that may be tried only once.

That an announcement is stored is not enough for them. The leader may have decided a moment before it was, by what it
had read until then, that the agent does not have the task, and give it to another; the record shows that only when the
decision is stored. What the record shows once the leader has read the announcement is final: a task that it knows to
run is given to another only as a further attempt.

Looks at records only, and decides nothing about tasks.
"""

import asyncio
import time
from collections.abc import Callable
from itertools import islice
from typing import Final, NamedTuple

from redis.exceptions import NoPermissionError

from agent_runtime.inbox import AttemptKey
from bus.connection import SERVER_ERRORS, Redis
from bus.states import TaskStatus

LOOK_S: Final = 0.005
LOOK_SELDOM_S: Final = 0.1
"""How long until the next look, at first and at last."""
ANEW_S: Final = 2.0
"""After so long it is announced again: a server that has lost its last second, say, has lost it."""
PAGE: Final = 500

_UNREAD: Final = f"{TaskStatus.ASSIGNED}/".encode()

Then = Callable[[bool], None]


def is_unread(state: bytes | None) -> bool:
    """Tell whether a task's record is as it was before its agent announced that it begins."""
    return state is not None and state.startswith(_UNREAD)


class _Waiting(NamedTuple):
    then: Then
    since: float


class Acceptance:
    """Waits for the leader, of many attempts at once. Used from the event loop only.

    `announce` says anew that an attempt begins; `has` tells by a state whether the task is still this attempt's.
    """

    def __init__(
        self,
        redis: Redis,
        record: Callable[[str], str],
        *,
        announce: Callable[[AttemptKey, Then], None],
        has: Callable[[AttemptKey, bytes | None], bool],
    ) -> None:
        self._redis = redis
        self._record = record
        self._announce = announce
        self._has = has
        self._waiting: dict[AttemptKey, _Waiting] = {}
        self._some = asyncio.Event()

    def wait(self, key: AttemptKey, then: Then) -> None:
        """Call `then` when the leader has read of the attempt: with False if it must not begin."""
        self._waiting[key] = _Waiting(then, time.monotonic())
        self._some.set()

    async def run(self) -> None:
        """Look again and again while anything waits, until cancelled."""
        pause = LOOK_S
        while True:
            await self._some.wait()
            await asyncio.sleep(pause)
            pause = LOOK_S if await self._look() else min(2 * pause, LOOK_SELDOM_S)
            if not self._waiting:
                self._some.clear()
                pause = LOOK_S

    async def _look(self) -> bool:
        """Look at all that waits; tell whether any has not to wait any more."""
        settled = False
        keys = iter(list(self._waiting))
        while page := list(islice(keys, PAGE)):
            try:
                async with self._redis.pipeline(transaction=False) as pipe:
                    for key in page:
                        pipe.hget(self._record(key[0]), "state")
                    states = await pipe.execute(raise_on_error=False)
            except SERVER_ERRORS:
                return settled  # whether the server serves is for those to say who write
            for key, state in zip(page, states, strict=True):
                settled |= self._looked(key, state)
        return settled

    def _looked(self, key: AttemptKey, state: bytes | Exception | None) -> bool:
        waiting = self._waiting[key]
        if isinstance(state, NoPermissionError):
            state = None
        if isinstance(state, Exception) or (is_unread(state) and self._has(key, state)):
            if time.monotonic() - waiting.since < ANEW_S:
                return False
            del self._waiting[key]
            self._announce(key, waiting.then)
        else:
            del self._waiting[key]
            waiting.then(self._has(key, state))
        return True
