"""Lua scripts as files, called through one typed declaration.

A script is content-addressed: EVALSHA runs exactly the text this process was shipped with, so a rolling upgrade can
never swap it under a running leader. An empty script cache (restart, SCRIPT FLUSH) costs one more round trip.
"""

import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from redis.exceptions import NoScriptError

from bus.connection import Redis

Arg = str | bytes | int | float


class Script:
    """One Lua file of a package. Its header is the contract: purpose, KEYS, ARGV, returns."""

    __slots__ = ("name", "sha", "source")

    def __init__(self, package: str, name: str) -> None:
        self.name = name
        self.source = (files(package) / f"{name}.lua").read_bytes()
        self.sha = hashlib.sha1(self.source, usedforsecurity=False).hexdigest()

    async def run(self, redis: Redis, keys: Sequence[str], args: Sequence[Arg]) -> Any:  # noqa: ANN401 - each script has a shape of its own
        """Run the script atomically and return its reply, unconverted.

        Raises what redis-py raises. After a `ConnectionError` or `TimeoutError` the outcome is unknown: it may have
        run. A missing script is loaded and run again, which is safe because it had not run.
        """
        try:
            return await redis.execute_command("EVALSHA", self.sha, len(keys), *keys, *args)  # type: ignore[no-untyped-call]
        except NoScriptError:
            return await redis.execute_command("EVAL", self.source, len(keys), *keys, *args)  # type: ignore[no-untyped-call]
