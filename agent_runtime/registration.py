"""How a session signs in: what it says of its agent, and how it says it until the leader has heard it.

The leader may ask for it again at any time (it has taken over with an empty ledger, say); repeating it is harmless.
"""

import asyncio
import logging
import os
import platform
import socket
from collections.abc import Mapping
from typing import Final

from pydantic import JsonValue, ValidationError
from pydantic_core import to_json

from agent_runtime.agent import Agent
from agent_runtime.definition import read_acceptance, refuse_id
from agent_runtime.errors import AgentDefinitionError
from agent_runtime.link import Link
from agent_runtime.settings import AgentSettings
from bus.backoff import Backoff
from bus.connection import SERVER_ERRORS, Redis
from bus.ids import SessionId
from bus.messages import Register, Unregister
from bus.names import DATA_FIELD

LOG: Final = logging.getLogger("callboard.agent")

_REPLY_S: Final = 1.0
_NOTEWORTHY_S: Final = 3.0
"""How long nobody may answer before it is logged, once."""


def registration_of(
    agent: Agent, agent_id: str, session: SessionId, settings: AgentSettings, metadata: Mapping[str, JsonValue]
) -> Register:
    """Return what `agent` says of itself.

    Raises `AgentDefinitionError` if that cannot be registered, or could not be read by the leader.
    """
    refuse_id(f"{type(agent).__qualname__}.attributes", agent.attributes)
    try:
        message = Register(
            agent_id=agent_id,
            session=session,
            capabilities=tuple(capability.spec for _, capability in agent.capabilities.values()),
            slots=settings.slots or agent.slots,
            resources=dict(agent.resources),
            rate=agent.rate,
            attributes=dict(agent.attributes),
            accepts=read_acceptance(type(agent), agent.accepts),
            metadata={
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "python": platform.python_version(),
                **metadata,
            },
            heartbeat_interval=settings.heartbeat_interval.total_seconds(),
            lease=settings.lease.total_seconds(),
        )
        return Register.model_validate_json(message.model_dump_json())
    except ValidationError as error:
        first = error.errors()[0]
        part = ".".join(str(step) for step in first["loc"]) or "description"
        where = type(agent).__qualname__
        raise AgentDefinitionError(where, f"its {part} cannot be registered", first["msg"]) from None


class Registration:
    """Signs one session in, and in again whenever the leader does not know it."""

    def __init__(self, redis: Redis, stream: str, message: Register, link: Link) -> None:
        self._redis = redis
        self._stream = stream
        self._message = message
        self._link = link
        self._wanted = asyncio.Event()
        self._news = asyncio.Event()
        """The leader has answered, or there is something else to say."""
        self._confirmed = -1
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []

    def acknowledged(self, revision: int) -> None:
        """Take note that the leader knows the session as registration `revision` told it."""
        self._confirmed = max(self._confirmed, revision)
        for asked, waiter in self._waiting:
            if asked <= revision and not waiter.done():
                waiter.set_result(None)
        if revision >= self._message.revision:
            self._wanted.clear()
            self._news.set()

    def forgotten(self) -> None:
        """Take note that the leader does not know the session."""
        self._wanted.set()

    def say(self, message: Register) -> None:
        """Sign in anew, with something else to say."""
        self._message = message
        self._wanted.set()
        self._news.set()

    async def confirmed(self, revision: int) -> None:
        """Return when the leader has confirmed a registration, or a later one.

        Waits for as long as there is no leader. Raises `RuntimeError` when the session ends before.
        """
        if self._confirmed >= revision:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (revision, waiter)
        self._waiting.append(entry)
        try:
            await waiter
        finally:
            self._waiting.remove(entry)

    def close(self) -> None:
        """Let nobody wait any more."""
        for _, waiter in self._waiting:
            if not waiter.done():
                waiter.set_exception(RuntimeError("the agent's session has ended: its next one starts afresh"))

    async def run(self) -> None:
        """Sign in, at the start and whenever it is needed again, until cancelled."""
        self._wanted.set()
        backoff = Backoff(base=0.1, cap=2.0)
        wait, unheard = _REPLY_S, 0.0
        while True:
            await self._wanted.wait()
            self._news.clear()
            body = self._message.model_dump_json().encode()
            try:
                await self._redis.xadd(self._stream, {DATA_FIELD: body})
            except SERVER_ERRORS as error:
                self._link.failed("registration", error)
                await asyncio.sleep(backoff.next())
                continue
            self._link.works("registration")
            backoff.reset()
            # Without a leader the message waits in its stream: sending it again soon would only lengthen that.
            if await self._heard(wait):
                wait, unheard = _REPLY_S, 0.0
                continue
            if unheard < _NOTEWORTHY_S <= unheard + wait:
                LOG.warning("no dispatcher answers in this pool, waiting for one: `callboard dispatcher` starts it")
            unheard += wait
            wait = min(2 * wait, 10 * _REPLY_S)

    async def sign_out(self, reason: str) -> None:
        """Say that this session ends. Without a server it is only logged: the leader learns of it by the lease."""
        body = to_json(Unregister(agent_id=self._message.agent_id, session=self._message.session, reason=reason))
        try:
            await self._redis.xadd(self._stream, {DATA_FIELD: body})
        except SERVER_ERRORS as error:
            LOG.warning("could not sign out (%s): the dispatcher will take this agent for lost", error)

    async def _heard(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return False
        return True
