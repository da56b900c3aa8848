"""What the leader has written to one agent, as an API process reads it for an agent that speaks only HTTP.

Which session the agent has is read from its record, what it is given and told from its two streams. Nothing is kept
here, so any process may serve any request; and nothing of one session is ever told to another.
"""

import logging
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, cast

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json, to_json

from bus.agent_requests import AgentRequest
from bus.connection import Redis
from bus.errors import UnknownAgentError
from bus.messages import READS, Control
from bus.names import DATA_FIELD, PoolNames
from bus.overrides import Overrides
from bus.states import AgentStatus
from dispatcher.api.arrivals import START, EntryId, entry_id, entry_text
from dispatcher.api.control import Said
from dispatcher.api.problems import SESSION_OVER, SUPERSEDED, ProblemError

LOG = logging.getLogger("callboard.api")

LOOK_AT: Final = 1000
"""Entries that are looked at in one go: more than the leader gives one agent ahead of its slots."""
HELD_MS: Final = 600_000
"""How long it is remembered what a heartbeat has listed: an agent that is silent for so long is lost."""
BYTES: Final = 4 * 1024 * 1024
"""Most that one poll hands out, unless the first assignment is larger by itself."""

_DATA: Final = DATA_FIELD.encode()


class Standing(BaseModel):
    """What of an agent's record says whether a session may speak, and what is wanted of it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    session: str
    status: AgentStatus
    retired: tuple[str, ...] = ()
    request: AgentRequest | None = None
    update: AgentRequest | None = None
    overrides: Overrides | None = None
    wanted: Overrides | None = None

    @property
    def updated(self) -> int:
        """Number of the last change of what it offers, if its registration has confirmed that; else 0."""
        return 0 if self.update is None or self.update.open else self.update.number

    @property
    def leaving(self) -> bool:
        """True if it gets nothing new, and is to end."""
        return self.status is AgentStatus.DRAINING

    def leaves(self, heeded: int) -> bool:
        """Tell whether it is to end and knows it, by the instruction that it heeds."""
        return self.leaving and self.request is not None and heeded >= self.request.number

    def check(self, session: str) -> None:
        """Raise the problem `superseded` or `session-over` unless `session` is the agent's present one."""
        if session == self.session:
            if self.status is AgentStatus.STOPPED:
                raise ProblemError(SESSION_OVER, "it was signed out: register again, without a session, to go on")
            return
        if session in self.retired:
            raise ProblemError(SUPERSEDED, "a later registration has this agent's id: stop, report nothing more")
        raise ProblemError(SESSION_OVER, "the leader does not know it: register again, without a session")


@dataclass(frozen=True, slots=True)
class Post:
    """What a poll finds: assignments as the JSON of their wire form."""

    assignments: list[dict[str, Any]]
    cursor: EntryId
    """Where the next poll begins."""
    seen: EntryId
    """What came up to here need not be waited for."""


class Mailbox:
    """One agent's. Each method is one round trip."""

    def __init__(self, redis: Redis, names: PoolNames, agent_id: str) -> None:
        self._redis = redis
        self._names = names
        self._agent_id = agent_id
        self.assignments = names.assignments(agent_id)
        self.control = names.control(agent_id)

    async def standing(self) -> Standing:
        """Return what is known of the agent. Raises `UnknownAgentError`."""
        return self._standing(cast("Any", await self._redis.hget(self._names.agent(self._agent_id), "record")))

    async def post(self, session: str, after: EntryId, most: int) -> Post:
        """Return what is behind `after` and to be handed out: what the session neither has begun nor says to hold.

        Nothing is if the agent is to end. Raises as `standing` and `Standing.check`.
        """
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.hget(self._names.agent(self._agent_id), "record")
            pipe.get(self._names.held(self._agent_id))
            pipe.xrange(self.assignments, min=f"({entry_text(after)}", count=LOOK_AT)
            record, held, entries = await pipe.execute()
        standing = self._standing(record)
        standing.check(session)
        if standing.leaving:
            # What it has not begun is handed back by its heartbeats, or handed out when it is resumed.
            return Post([], after, entry_id(entries[-1][0]) if entries else after)
        known = _held(held, session)
        found: list[dict[str, Any]] = []
        size = 0
        for entry, body, message in self._of(session, entries):
            if message is not None and (message.get("task_id"), message.get("attempt")) not in known:
                size += len(body)
                if len(found) == most or (found and size > BYTES):
                    return Post(found, after, after)
                found.append(message)
            after = entry
        return Post(found, after, after)

    async def told(self, after: EntryId | None) -> tuple[Standing, list[tuple[EntryId, Any]]]:
        """Return what is known of the agent, and the entries of its control stream behind `after`, or the latest."""
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.hget(self._names.agent(self._agent_id), "record")
            if after is None:
                pipe.xrevrange(self.control, count=LOOK_AT)
            else:
                pipe.xrange(self.control, min=f"({entry_text(after)}", count=LOOK_AT)
            record, entries = await pipe.execute()
        if after is None:
            entries.reverse()
        return self._standing(record), [(entry_id(raw), fields) for raw, fields in entries]

    async def control_tip(self) -> EntryId:
        """Return where the control stream ends."""
        last: Any = await self._redis.xrevrange(self.control, count=1)
        return entry_id(last[0][0]) if last else START

    async def beaten(self, session: str, beat: bytes, holding: Iterable[tuple[str, int]], kept: int) -> None:
        """Write a heartbeat, and note what it lists; of a pool's beats about `kept` are kept."""
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.xadd(self._names.heartbeats, {DATA_FIELD: beat}, maxlen=kept, approximate=True)
            held = to_json({"session": session, "attempts": list(holding)})
            pipe.set(self._names.held(self._agent_id), held, px=HELD_MS)
            await pipe.execute()

    async def left(self, session: str, holding: Collection[tuple[str, int]]) -> list[tuple[str, int]]:
        """Return the attempts in it that the session has neither begun nor says to hold."""
        entries: Any = await self._redis.xrange(self.assignments, count=LOOK_AT)
        found = [(one["task_id"], one["attempt"]) for _, _, one in self._of(session, entries) if one is not None]
        return [key for key in found if key not in holding]

    def said(self, session: str, entries: Iterable[tuple[EntryId, Any]]) -> list[Said]:
        """Return the messages to `session` among entries of the control stream; others are left out."""
        found: list[Said] = []
        for entry, fields in entries:
            try:
                said = Control.model_validate_json(fields[_DATA]).root
            except (ValidationError, KeyError):
                LOG.warning("control entry %s of agent %s cannot be understood", entry_text(entry), self._agent_id)
                continue
            if said.session == session:
                found.append(said)
        return found

    def _standing(self, record: bytes | None) -> Standing:
        if record is None:
            raise UnknownAgentError(self._agent_id, self._names.pool)
        return Standing.model_validate_json(record)

    def _of(self, session: str, entries: Any) -> Iterator[tuple[EntryId, bytes, dict[str, Any] | None]]:  # noqa: ANN401 - redis-py's
        for raw, fields in entries:
            entry, body = entry_id(raw), fields.get(_DATA, b"")
            try:
                message = from_json(body)
                mine = message["session"] == session and message.get("v", 1) <= READS
            except (ValueError, KeyError, TypeError):
                LOG.warning("assignment %s of agent %s cannot be understood", entry_text(entry), self._agent_id)
                mine = False
            yield entry, body, message if mine else None


def _held(raw: bytes | None, session: str) -> frozenset[tuple[str, int]]:
    if raw is None:
        return frozenset()
    noted = from_json(raw)
    if noted["session"] != session:
        return frozenset()
    return frozenset((task_id, attempt) for task_id, attempt in noted["attempts"])
