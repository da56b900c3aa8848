"""`callboard token`: make, list and revoke tokens of the REST API."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from cyclopts import App, Parameter
from pydantic import ValidationError

from bus.connection import CONNECTION_ERRORS, connect, resolve_url
from bus.errors import BusUnavailableError
from callboard.failures import CommandError, UsageError
from callboard.moments import moment
from callboard.options import AsJson, RedisUrl
from callboard.output import print_json, print_line, print_table, say
from dispatcher.api.tokens import TokenRecord, Tokens

token = App(name="token", help="Make, list and revoke tokens of the REST API.", result_action="return_value")


@asynccontextmanager
async def _tokens(url: str | None) -> AsyncIterator[Tokens]:
    try:
        redis = connect(url, name="callboard-token")
    except ValueError as error:
        raise UsageError(f"{error}: correct --redis-url, or CALLBOARD_REDIS_URL") from None
    try:
        async with redis:
            yield Tokens(redis)
    except CONNECTION_ERRORS as error:
        raise BusUnavailableError(resolve_url(url), str(error)) from error


def _shown(record: TokenRecord) -> dict[str, Any]:
    return record.model_dump(exclude={"digest"})


@token.command
async def create(
    *,
    scope: Annotated[
        list[str],
        Parameter(help="What it allows: read, submit, operate, agent:ID, or admin, which is all; may be repeated."),
    ],
    name: Annotated[str, Parameter(help="What, or who, it is for.")] = "",
    pool: Annotated[list[str] | None, Parameter(help="Only for this pool; may be repeated.")] = None,
    redis_url: RedisUrl = None,
    json: AsJson = False,
) -> int:
    """Make a token and print it: only now, for the server keeps nothing but a hash of it."""
    async with _tokens(redis_url) as tokens:
        try:
            text, record = await tokens.create(scope, name=name, pools=pool or ())
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            text = problem["msg"].removeprefix("Value error, ")
            raise UsageError(
                f"{problem['loc'][0]}: {text}: `callboard token create --help` shows what it takes"
            ) from None
    if json:
        print_json({"token": text, **_shown(record)})
        return 0
    say(f"token {record.id}; keep it well, it is not shown again:")
    print_line(text)
    return 0


@token.command(name="list")
async def list_tokens(*, redis_url: RedisUrl = None, json: AsJson = False) -> int:
    """List all tokens by what they allow; the tokens themselves are not kept."""
    async with _tokens(redis_url) as tokens:
        found = await tokens.all()
    if json:
        print_json([_shown(record) for record in found])
        return 0
    print_table(
        ("id", "name", "scopes", "pools", "created"),
        ((r.id, r.name, " ".join(r.scopes), " ".join(r.pools) or "all", moment(r.created_at)) for r in found),
        caption="" if found else "no tokens: make one with `callboard token create --scope admin`",
    )
    return 0


@token.command
async def revoke(
    token_id: Annotated[str, Parameter(help="Id of the token, as `callboard token list` shows it.")],
    /,
    *,
    redis_url: RedisUrl = None,
    json: AsJson = False,
) -> int:
    """Revoke a token; API processes refuse it two seconds later at the latest."""
    async with _tokens(redis_url) as tokens:
        known = await tokens.revoke(token_id)
    if not known:
        raise CommandError(f"no token {token_id}: `callboard token list` shows all")
    if json:
        print_json({"id": token_id, "revoked": True})
    else:
        print_line(f"revoked {token_id}")
    return 0
