"""Instants of the server's clock, in words."""

from datetime import UTC, datetime

from bus.clock import wall_ms


def moment(ms: int | None) -> str | None:
    """Return an instant in local time, to the millisecond; None for none."""
    if not ms:
        return None
    return datetime.fromtimestamp(ms / 1000, UTC).astimezone().isoformat(sep=" ", timespec="milliseconds")


def ago(ms: int | None) -> str:
    """Return how long ago an instant was, roughly; this machine's clock against the server's."""
    if not ms:
        return ""
    seconds = max(0, wall_ms() - ms) // 1000
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit} ago"
    return f"{seconds}s ago"
