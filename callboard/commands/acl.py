"""`callboard acl`: rules for Redis' access control lists, a user for each role."""

import secrets
from typing import Annotated, Literal

from cyclopts import Parameter

from bus.access import users
from bus.ids import DEFAULT_POOL, check_pool
from bus.names import PoolNames
from callboard.failures import UsageError
from callboard.options import AsJson, Flag
from callboard.output import print_json, print_line, say

_SHARED = ("client", "reader", "api", "dispatcher")


def acl(
    *,
    pool: Annotated[str, Parameter(help="Pool that the users are for.")] = DEFAULT_POOL,
    agent: Annotated[
        list[str] | None,
        Parameter(metavar="ID", help="Agent that gets a user of its own, `crew-*` for several; may be repeated."),
    ] = None,
    role: Annotated[
        list[Literal["client", "reader", "api", "dispatcher"]] | None,
        Parameter(metavar="ROLE", help="Only these of client, reader, api, dispatcher; may be repeated."),
    ] = None,
    durability: Annotated[
        Flag, Parameter(help="Let clients ask for durability, which shows them the settings.")
    ] = False,
    passwords: Annotated[Flag, Parameter(help="Make a password for each user, and tell it on stderr.")] = False,
    json: AsJson = False,
) -> int:
    """Print one line for each user, as `users.acl` and `redis.conf` take it: what its role needs, and nothing more.

    Without --passwords nobody can log in before `ACL SETUSER name >secret` has given the user one. Nothing is sent to a
    server.
    """
    try:
        found = users(PoolNames(check_pool(pool)), role or _SHARED, agent or (), durability=durability)
    except ValueError as error:
        raise UsageError(str(error)) from None
    secret = {user.name: secrets.token_urlsafe(24) if passwords else None for user in found}
    if json:
        print_json(
            [
                {"user": one.name, "role": one.role, "password": secret[one.name], "line": one.line(secret[one.name])}
                for one in found
            ]
        )
        return 0
    for one in found:
        print_line(one.line(secret[one.name]))
    for name, password in secret.items():
        if password is not None:
            say(f"redis://{name}:{password}@HOST:PORT/0")
    return 0
