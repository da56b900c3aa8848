"""The one format of the log lines that processes write to stderr: for people, or as JSON for machines."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Final, Literal

Level = Literal["debug", "info", "warning", "error"]

_OURS: Final = "callboard"
_QUIET: Final = ("faststream", "redis", "asyncio")
"""Libraries that tell of every message at INFO."""


class HumanFormatter(logging.Formatter):
    """`14:03:07 warning agent: text`; a traceback follows on its own lines."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        moment = datetime.fromtimestamp(record.created, UTC).astimezone()
        source = record.name.removeprefix(f"{_OURS}.")
        line = f"{moment:%H:%M:%S} {record.levelname.lower():<7} {source}: {record.getMessage()}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC, ISO 8601), level, logger, message, pid, and error with its traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        fields = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "pid": record.process,
        }
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False, default=str)


def set_up(level: Level = "info", *, as_json: bool = False) -> None:
    """Send the log of this process to stderr. Libraries are heard from WARNING on, whatever `level` is."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else HumanFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
