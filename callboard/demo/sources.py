"""Which files the census counts, and what is asked about each."""

import re
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from bus.records import TaskCreate
from bus.states import TaskPriority

OUTLINE: Final = "python.outline"
STATS: Final = "text.stats"
SCAN: Final = "secrets.scan"

_SENSITIVE: Final = re.compile(
    r"ssl|http|socket|hash|hmac|secret|smtp|ftp|imap|poplib|telnet|urllib|email|crypt|getpass|netrc|xmlrpc|uuid|random"
)
_TEXTUAL: Final = {"test", "tests", "idle_test", "encodings", "pydoc_data", "turtledemo"}


@dataclass(frozen=True, slots=True)
class Question:
    """One file and what is asked about it: one task."""

    path: str
    capability: str
    priority: TaskPriority

    @property
    def task(self) -> TaskCreate:
        """The task to submit."""
        return TaskCreate(
            capability=self.capability,
            payload={"path": self.path},
            priority=self.priority,
            run_timeout=60.0,
            tags=("census",),
        )


def question_about(path: str) -> Question:
    """Decide what is asked about a file.

    What deals with networks and secrets is scanned first; tests and tables are only counted, when there is time; of all
    else the outline is drawn.
    """
    parts = PurePosixPath(path).parts
    if _TEXTUAL & set(parts):
        return Question(path, STATS, TaskPriority.LOW)
    if any(_SENSITIVE.search(part) for part in parts):
        return Question(path, SCAN, TaskPriority.HIGH)
    return Question(path, OUTLINE, TaskPriority.MEDIUM)


def questions(limit: int | None = None) -> list[Question]:
    """Return one question per source of the running interpreter's standard library, `limit` at most."""
    found = [question_about(path) for path in sorted(_sources(Path(sysconfig.get_path("stdlib"))))]
    return found if limit is None else found[:: max(1, len(found) // limit)][:limit]


def _sources(library: Path) -> Iterator[str]:
    for file in library.rglob("*.py"):
        path = file.relative_to(library)
        if not {"site-packages", "dist-packages", "__pycache__"} & set(path.parts) and file.is_file():
            yield path.as_posix()
