"""`callboard demo`: the census of Python's standard library."""

from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from callboard.options import PORT_RANGE, AsJson


async def demo(
    *,
    keep: Annotated[bool, Parameter(negative=(), help="Leave everything running until Ctrl-C.")] = False,
    redis_port: Annotated[int, Parameter(validator=PORT_RANGE, help="Port of the server; 0 is any free one.")] = 0,
    limit: Annotated[int | None, Parameter(validator=Number(gte=2), help="Read only so many files.")] = None,
    json: AsJson = False,
) -> int:
    """Watch a census of Python's standard library: three agents read every file of it, and one is killed half way.

    A server, a dispatcher and the agents are started for it, each a process of its own, and stopped after it. The exit
    code is 0 if the census is complete.
    """
    from callboard.demo.main import run  # noqa: PLC0415 - not needed for --help

    return await run(keep=keep, json=json, redis_port=redis_port, limit=limit)
