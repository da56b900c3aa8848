"""Reads what the leader writes to one agent: its assignments and its control stream, without consumer groups.

The cursors live in memory (docs/decisions/0001): a read whose reply was lost is simply made again. After a lost
connection both streams are read from their beginning, because the server that answers then may be another one that
knows less, with ids behind the cursor; the inbox drops what it knows. Entries of other sessions are of an earlier life.
Of a newer version than this program reads nothing is handed on, but that there is such a leader.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

from pydantic_core import from_json

from agent_runtime.link import Link
from bus.backoff import Backoff
from bus.connection import BLOCK_MS, SERVER_ERRORS, Redis
from bus.ids import SessionId
from bus.messages import READS
from bus.names import DATA_FIELD, PoolNames

LOG: Final = logging.getLogger("callboard.agent")

READ_COUNT: Final = 256
FEW: Final = 8
"""Entries of one read that are not in a hurry for others to come: where there are many, more are asked for at once."""
PASSES: Final = 2
"""Of the event loop, from an assignment to the report of its end where it does not wait: it begins, it is reported."""
BEGINNING: Final = "0-0"
_FIELD: Final = DATA_FIELD.encode()

Entry = tuple[bytes, dict[bytes, bytes]]
Entries = Sequence[Entry]


class Reader:
    """One loop that reads both streams at once and hands on what is of this session."""

    def __init__(
        self,
        redis: Redis,
        names: PoolNames,
        agent_id: str,
        session: SessionId,
        *,
        assigned: Callable[[list[dict[str, Any]]], None],
        instructed: Callable[[dict[str, Any]], None],
        outdated: Callable[[int], None],
        link: Link,
    ) -> None:
        self._redis = redis
        self._session = session
        self._assignments = names.assignments(agent_id)
        self._control = names.control(agent_id)
        self._assigned = assigned
        self._instructed = instructed
        self._outdated = outdated
        self._link = link
        self._backoff = Backoff(base=0.1, cap=2.0)
        self.cursor = BEGINNING
        """The last assignment that was read; heartbeats carry it."""
        self.control_cursor = BEGINNING
        """The last instruction that was read; the heartbeat's thread goes on from it when the loop is stuck."""

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            try:
                reply = await self._redis.xread(
                    {self._control: self.control_cursor, self._assignments: self.cursor},
                    count=READ_COUNT,
                    block=BLOCK_MS,
                )
            except SERVER_ERRORS as error:
                self._link.failed("reader", error)
                self.cursor = self.control_cursor = BEGINNING
                await asyncio.sleep(self._backoff.next())
                continue
            self._link.works("reader")
            self._backoff.reset()
            if reply:
                self._take(found := dict(_by_stream(reply)))
                if sum(map(len, found.values())) <= FEW:
                    # They begin, and what comes of them is written, before the next are asked for: that takes a while.
                    for _ in range(PASSES):
                        await asyncio.sleep(0)

    def _take(self, entries: dict[str, Entries]) -> None:
        # Assignments first: a cancel in the same read is meant for one of them.
        if given := entries.get(self._assignments):
            messages = [message for entry in given if (message := self._decoded(entry)) is not None]
            self.cursor = given[-1][0].decode()
            if messages:
                self._assigned(messages)
        for entry in entries.get(self._control, ()):
            message = self._decoded(entry)
            if message is not None:
                self._instructed(message)
            self.control_cursor = entry[0].decode()

    def _decoded(self, entry: Entry) -> dict[str, Any] | None:
        """Return an entry's message; None for what is not for this session or cannot be understood."""
        entry_id, fields = entry
        try:
            message: dict[str, Any] = from_json(fields[_FIELD], cache_strings="keys")
            if message["session"] != self._session:
                return None
            newer = (version := message.get("v", 1)) > READS
        except (ValueError, KeyError, TypeError) as error:
            LOG.error("left out entry %s: it cannot be understood (%r)", entry_id.decode(), error)  # noqa: TRY400
            return None
        if newer:
            self._outdated(version)
            return None
        return message


def _by_stream(reply: Any) -> list[tuple[str, Entries]]:  # noqa: ANN401 - redis-py's reply depends on the protocol
    """Return the entries of each stream, whichever protocol the connection speaks."""
    if isinstance(reply, dict):
        return [(stream.decode(), blocks[0]) for stream, blocks in reply.items()]
    return [(stream.decode(), entries) for stream, entries in reply]
