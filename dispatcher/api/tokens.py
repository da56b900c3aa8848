"""Bearer tokens of the REST API: made and revoked by operators, kept in Redis by their hash only.

A token is `cb_<id>_<secret>`. The id finds the record, the secret is compared with its SHA-256 in constant time: it has
256 random bits, so a slow hash would protect nothing. Tokens are the server's, not a pool's: one may be for several
pools, and a record says which.
"""

import hmac
import re
import secrets
from collections.abc import Iterable
from hashlib import sha256
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from bus.clock import wall_ms
from bus.connection import Redis
from bus.ids import POOL_PATTERN, check_agent_id
from bus.names import TOKENS_KEY

READ: Final = "read"
SUBMIT: Final = "submit"
OPERATE: Final = "operate"
ADMIN: Final = "admin"
AGENT: Final = "agent:"

_PLAIN: Final = frozenset({READ, SUBMIT, OPERATE, ADMIN})
_TOKEN: Final = re.compile(r"cb_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_NOBODY: Final = sha256(secrets.token_bytes(32)).hexdigest()
"""What the secret of an unknown id is compared with, so that it takes no shorter."""


def _scope(scope: str) -> str:
    if scope not in _PLAIN:
        if not scope.startswith(AGENT):
            raise ValueError(f"{scope!r} is no scope: use {', '.join(sorted(_PLAIN))}, or agent:ID")
        check_agent_id(scope.removeprefix(AGENT))
    return scope


Scope = Annotated[str, AfterValidator(_scope)]
"""What a token allows: `read`, `submit`, `operate`, `agent:<id>` (speak for that agent), or `admin`, which is all."""


class TokenRecord(BaseModel):
    """What is kept of a token."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str = Field(pattern=r"^[0-9a-f]{12}$")
    name: str = Field("", max_length=100)
    scopes: tuple[Scope, ...] = Field(min_length=1, max_length=64)
    pools: tuple[Annotated[str, Field(pattern=POOL_PATTERN)], ...] = Field((), max_length=64)
    created_at: int = 0
    digest: str = Field(repr=False)


class Tokens:
    """The tokens of one server."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def create(
        self, scopes: Iterable[str], *, name: str = "", pools: Iterable[str] = ()
    ) -> tuple[str, TokenRecord]:
        """Make a token; return it, which nobody will be able to do again, and its record.

        Without `pools` it is for all of them. Raises pydantic's `ValidationError` for what is no scope or no pool.
        """
        secret = secrets.token_urlsafe(32)
        record = TokenRecord(
            id=secrets.token_hex(6),
            name=name,
            scopes=tuple(dict.fromkeys(scopes)),
            pools=tuple(dict.fromkeys(pools)),
            created_at=wall_ms(),
            digest=_digest(secret),
        )
        await self._redis.hset(TOKENS_KEY, record.id, record.model_dump_json())
        return f"cb_{record.id}_{secret}", record

    async def all(self) -> list[TokenRecord]:
        """Return every token's record, the oldest first."""
        rows: Any = await self._redis.hvals(TOKENS_KEY)
        return sorted(map(TokenRecord.model_validate_json, rows), key=lambda record: (record.created_at, record.id))

    async def revoke(self, token_id: str) -> bool:
        """Forget a token; False if there was none. API processes that know it heed that within two seconds."""
        return bool(await self._redis.hdel(TOKENS_KEY, token_id))

    async def any(self) -> bool:
        """Tell whether there is a token at all."""
        return bool(await self._redis.exists(TOKENS_KEY))

    async def find(self, token: str) -> TokenRecord | None:
        """Return the record of a token, None if it is none of ours."""
        parts = _TOKEN.fullmatch(token)
        if parts is None:
            return None
        row: Any = await self._redis.hget(TOKENS_KEY, parts[1])
        record = None if row is None else TokenRecord.model_validate_json(row)
        same = hmac.compare_digest(_digest(parts[2]), _NOBODY if record is None else record.digest)
        return record if same else None


def is_token(text: str) -> bool:
    """Tell whether `text` has the form of a token."""
    return _TOKEN.fullmatch(text) is not None


def _digest(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()
