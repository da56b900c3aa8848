"""What is under way now, by what agents write down while they run: read on from where it was read to."""

import json
from pathlib import Path

import psutil


class Flight:
    """The executions that have begun and have not ended, of processes that live."""

    def __init__(self, journals: Path) -> None:
        self._journals = journals
        self._read_to: dict[Path, int] = {}
        self._open: dict[Path, set[str]] = {}
        self._dead: set[Path] = set()

    def has(self, agent: str) -> bool:
        """Tell whether an agent has work under way; with an empty name, whether any has."""
        return any(self._goes_on(path) for path in self._journals.glob(f"agent-{agent or '*'}-*.jsonl"))

    def _goes_on(self, path: Path) -> bool:
        if path in self._dead:
            return False
        if not psutil.pid_exists(int(path.stem.rpartition("-")[2])):
            self._dead.add(path)
            return False
        under_way = self._open.setdefault(path, set())
        with path.open("rb") as file:
            file.seek(self._read_to.get(path, 0))
            for raw in file:
                if not raw.endswith(b"\n"):
                    break
                self._read_to[path] = self._read_to.get(path, 0) + len(raw)
                line = json.loads(raw)
                (under_way.add if line["what"] == "begin" else under_way.discard)(line["token"])
        return bool(under_way)
