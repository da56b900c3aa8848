"""Who leads a pool: a lease with an epoch, and the clock that comes with it.

The lease lives in Redis; the *trust window* lives here: a dispatcher believes in its lead only until the lease it last
renewed would have run out by its own monotonic clock, counted from before the renewal was sent. Past that it may not
know that another leads, which is why believing is never enough: every commit compares the token in Redis.
"""

from dataclasses import dataclass
from typing import Final

from bus.clock import ServerClock, monotonic_ms
from bus.connection import Redis
from bus.ids import new_nonce
from bus.names import POOLS_KEY, PoolNames
from bus.script import Script

LEAD: Final = Script("dispatcher.scripts", "lead")
RENEW: Final = Script("dispatcher.scripts", "renew")


@dataclass(frozen=True, slots=True)
class Lead:
    """A won lead. `token` is the fence that every commit carries."""

    token: str
    epoch: int


def leads(token: bytes | None) -> str | None:
    """Return the id of the dispatcher that holds the lease with this token, None for no token."""
    return None if token is None else token.decode(errors="replace").partition("|")[2].rpartition("|")[0]


class Leadership:
    """One dispatcher's candidacy for one pool. Not safe for concurrent use."""

    def __init__(self, redis: Redis, names: PoolNames, dispatcher_id: str, *, lease_ms: int = 3000) -> None:
        self._redis = redis
        self._names = names
        self._id = dispatcher_id
        self._lease_ms = lease_ms
        self._nonce = new_nonce()
        self._trusted_until = 0.0
        self.clock = ServerClock()
        self.lead: Lead | None = None
        self.free_in_s = 0.0
        """When the lease of whoever leads would end, counted from the last try to become the leader."""

    async def acquire(self) -> Lead | None:
        """Try once to become the leader; None while another is. Raises redis-py's connection errors."""
        sent = monotonic_ms()
        keys = [self._names.leader, self._names.epoch]
        won, token, rest, now = await LEAD.run(self._redis, keys, [self._id, self._nonce, self._lease_ms])
        self.clock.observe(now)
        if not won:
            self.free_in_s = max(0, rest) / 1000 + 0.001
            return None
        await self._redis.sadd(POOLS_KEY, self._names.pool)
        self._trusted_until = sent + self._lease_ms
        self.lead = Lead(token.decode(), rest)
        return self.lead

    async def renew(self) -> bool:
        """Extend the lease; False if it is no longer ours. Raises redis-py's connection errors."""
        if self.lead is None:
            return False
        sent = monotonic_ms()
        ours, now = await RENEW.run(self._redis, [self._names.leader], [self.lead.token, self._lease_ms])
        self.clock.observe(now)
        if ours:
            self._trusted_until = sent + self._lease_ms
        return bool(ours)

    async def release(self) -> None:
        """Give the lead back, so that another need not wait for the lease to end; a stale lead is left alone."""
        lead, self.lead = self.lead, None
        self._nonce = new_nonce()
        if lead is not None:
            await RENEW.run(self._redis, [self._names.leader], [lead.token, 0])

    @property
    def trusted(self) -> bool:
        """True while the lease is certainly still ours."""
        return self.lead is not None and monotonic_ms() < self._trusted_until
