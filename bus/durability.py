"""Durability on request: what a submission's receipt proves, beyond that the server has it.

- *fsync*: the server runs with ``appendonly yes`` and ``appendfsync always``, so that its reply is sent when the write
  is on its disk. Nothing else proves that: under ``everysec`` WAITAOF was seen to answer before any fsync.
- *replicated*: so many replicas have it (WAIT).

Both are asked of the server before anything is stored, and refused where it cannot give them. They are looked at again
when all is stored: if another server has answered meanwhile (a failover, a restart), nothing is proven by either.

A replica acknowledges in the order in which things were written. So whatever was stored before a mark, over whichever
connection, is on every replica that has acknowledged the mark; one mark serves any number of tasks.
"""

from dataclasses import dataclass
from time import monotonic
from typing import Any, Final, Literal

from redis.exceptions import ResponseError

from bus.connection import CONNECTION_ERRORS
from bus.errors import DurabilityNotProvenError, DurabilityUnavailableError
from bus.ids import new_nonce
from bus.link import Link

WAIT_MS: Final = 1_000
"""One WAIT: well below the socket's timeout."""
MARK_TTL_MS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Replicated:
    """That so many replicas have it; they are waited for `timeout` seconds."""

    replicas: int = 1
    timeout: float = 5.0

    def __post_init__(self) -> None:
        if self.replicas < 1 or self.timeout <= 0:
            raise ValueError("durability: replicas must be at least 1, and the timeout above 0 seconds")


Durability = Literal["fsync", "replicated"] | Replicated
"""What a submitter may ask for; ``replicated`` is `Replicated()`."""


@dataclass(frozen=True, slots=True)
class _Server:
    run_id: str
    replicas: int
    syncs: bool
    why_not: str


class Prover:
    """Proves what is asked for one call of submit. `promise` before anything is stored, `prove` when all is."""

    def __init__(self, link: Link, wanted: Durability) -> None:
        if not (isinstance(wanted, Replicated) or wanted in ("fsync", "replicated")):
            raise ValueError(f"durability is 'fsync', 'replicated' or Replicated(...), and not {wanted!r}")
        self._link = link
        self._replicated = Replicated() if wanted == "replicated" else wanted if wanted != "fsync" else None
        self._promised = ""

    async def promise(self) -> None:
        """Make sure that the server can give it. Raises `DurabilityUnavailableError`, `BusUnavailableError`."""
        server = await self._look()
        asked = self._replicated
        if asked is None and not server.syncs:
            raise DurabilityUnavailableError("fsync", server.why_not)
        if asked is not None and server.replicas < asked.replicas:
            raise DurabilityUnavailableError(
                "replicated",
                f"{server.replicas} replicas are connected and {asked.replicas} are asked for: start replicas, or ask "
                "for fewer",
            )
        self._promised = server.run_id

    async def prove(self) -> str | None:
        """Return why it is not proven that all that was stored since the promise is durable; None if it is."""
        try:
            return await self._not_proven()
        except CONNECTION_ERRORS as error:
            return f"the server does not answer ({error})"
        except DurabilityUnavailableError as error:
            return str(error)

    async def _not_proven(self) -> str | None:
        asked = self._replicated
        if asked is not None:
            acknowledged = await self._wait(asked)
            if acknowledged < asked.replicas:
                return f"{acknowledged} of {asked.replicas} replicas have acknowledged it within {asked.timeout:g} s"
        server = await self._look()
        if server.run_id != self._promised:
            return "the server was restarted, or another has taken its place, meanwhile"
        return None if asked is not None or server.syncs else server.why_not

    async def _wait(self, asked: Replicated) -> int:
        """Write a mark, and wait until enough replicas have it; return how many have."""
        until = monotonic() + asked.timeout
        mark = self._link.names(None).offer(new_nonce())
        while True:
            left = max(1, min(WAIT_MS, int((until - monotonic()) * 1000)))
            async with self._link.redis.pipeline(
                transaction=False
            ) as pipe:  # WAIT speaks of its own connection's writes
                pipe.set(mark, "", px=MARK_TTL_MS)
                pipe.wait(asked.replicas, left)
                _, acknowledged = await pipe.execute()
            if acknowledged >= asked.replicas or monotonic() >= until:
                return int(acknowledged)

    async def _look(self) -> _Server:
        """Ask the server who it is and what it can do."""
        redis = self._link.redis
        try:
            about: Any = await self._link.ask(redis.info("server"))
            replication: Any = await self._link.ask(redis.info("replication"))
            settings: Any = {} if self._replicated else await self._link.ask(redis.config_get("append*"))
        except ResponseError as error:
            raise DurabilityUnavailableError(
                "what is asked for",
                f"the server does not tell what it can do ({error}): allow INFO, WAIT and CONFIG GET "
                "(`callboard acl --durability`)",
            ) from error
        told = {str(_text(name)): str(_text(value)) for name, value in settings.items()}
        appendonly, appendfsync = told.get("appendonly", ""), told.get("appendfsync", "")
        why_not = (
            f"the server has appendonly {appendonly or 'unknown'} and appendfsync {appendfsync or 'unknown'}: set "
            "`appendonly yes` and `appendfsync always`"
        )
        return _Server(
            run_id=str(about["run_id"]),
            replicas=int(replication.get("connected_slaves", 0)) if replication.get("role") == "master" else 0,
            syncs=appendonly == "yes" and appendfsync == "always",
            why_not=why_not,
        )


def _text(value: object) -> object:
    return value.decode() if isinstance(value, bytes) else value


async def promised(link: Link, wanted: Durability | None) -> Prover | None:
    """Return what proves `wanted` when all is stored; None if nothing is asked for. Raises as `Prover.promise`."""
    if wanted is None:
        return None
    prover = Prover(link, wanted)
    await prover.promise()
    return prover


async def proven(prover: Prover | None, handles: list[Any]) -> None:
    """Raise `DurabilityNotProvenError` with these handles if what was asked for is not proven."""
    if prover is not None and (why := await prover.prove()) is not None:
        raise DurabilityNotProvenError(why, handles)
