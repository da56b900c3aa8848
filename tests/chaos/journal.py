"""What submitters and agents themselves have seen, in files of their own: the evidence that the auditor judges by.

One JSON object a line, written by one `write` each, so that a process which is killed leaves whole lines. Instants are
seconds of the machine's monotonic clock, which all processes share, stopped ones too.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

Line = dict[str, Any]


class Journal:
    """One writer's file."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, what: str, **said: Any) -> None:
        """Add a line."""
        os.write(self._file, json.dumps({"what": what, "at": time.monotonic(), **said}).encode() + b"\n")


def read(folder: Path, pattern: str) -> list[Line]:
    """Return the lines of all journals in `folder` whose names match, by their instants."""
    lines = [json.loads(raw) for path in sorted(folder.glob(pattern)) for raw in path.read_text().splitlines()]
    return sorted(lines, key=lambda line: float(line["at"]))
