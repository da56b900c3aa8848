"""What is asked of an agent, and how far that is, in words for people."""

from bus.agent_requests import AgentRequest, Pause, RequestKind, RequestState
from bus.clock import wall_ms
from bus.overrides import Overrides
from bus.records import AgentInfo
from callboard.output import json_text

_SIZES = ((86_400, "d"), (3600, "h"), (60, "min"))


def standing(info: AgentInfo) -> str:
    """Return in one line what keeps an agent from being as it usually is; empty if nothing does."""
    parts = [] if info.pause is None else [pause_words(info.pause)]
    asked = [one for one in (info.request, info.update) if one is not None]
    parts += [_request(one, info) for one in asked if one.open or one.error is not None]
    return "; ".join(parts)


def pause_words(pause: Pause) -> str:
    """Say who has paused it, what for, and for how long still (this machine's clock against the server's)."""
    left = "" if pause.until is None else f", {_duration(max(0, pause.until - wall_ms()) / 1000)} left"
    return f"{pause.words}{left}"


def request_words(request: AgentRequest) -> str:
    """Say all of a request in one line."""
    state = request.state or RequestState.REQUESTED
    parts = [f"{request.kind} {state}{_late(request)}"]
    if request.by:
        parts.append(f"by {request.by}")
    if request.reason:
        parts.append(f"({request.reason})")
    return " ".join(parts) + (f": {request.error}" if request.error else "")


def slots_words(info: AgentInfo) -> str:
    """Say how many of its slots are taken, and what is in its hands without them."""
    load = info.workload
    if load is None:
        return str(info.slots)
    ahead = max(0, load.taken - info.slots)
    numbers = {
        "ahead": ahead,
        "waiting for children": load.waiting,
        "held by code that does not stop": load.occupied,
    }
    more = ", ".join(f"{number} {what}" for what, number in numbers.items() if number)
    return f"{load.taken - ahead}/{info.slots}" + (f" ({more})" if more else "")


def resource_words(info: AgentInfo) -> str:
    """Say what is taken of its resources; empty if it has none."""
    granted = {} if info.workload is None else info.workload.granted
    taken = "" if info.workload is None else "{:g}/"
    return ", ".join(f"{name} {taken.format(granted.get(name, 0))}{much:g}" for name, much in info.resources.items())


def shut_words(until: int) -> str:
    """Say of a capability that is shut off how long still (this machine's clock against the server's)."""
    left = (until - wall_ms()) / 1000
    return "shut off after failures, " + (f"probe in {left:.1f} s" if left > 0 else "the next task is the probe")


def override_rows(overrides: Overrides) -> list[tuple[str, object]]:
    """Return what operators have changed, a name and a value each."""
    return [
        *((f"changed attribute {name}", json_text(value)) for name, value in overrides.attributes.items()),
        ("removed attributes", ", ".join(overrides.without)),
        ("disabled", ", ".join(overrides.disabled)),
        ("changed slots", overrides.slots),
    ]


def _request(request: AgentRequest, info: AgentInfo) -> str:
    words = {RequestKind.DRAIN: "draining", RequestKind.RESTART: "restarting"}
    confirmed = request.confirmed_at is not None
    parts = [words.get(request.kind, str(request.kind)) if confirmed else f"{request.kind} not confirmed"]
    if request.error is not None:
        return f"{request.kind} refused: {request.error}"
    load = info.workload
    if confirmed and request.kind in words and load is not None and (left := load.running + load.assigned):
        parts.append(f"{left} task{'s' * (left != 1)} left")
    if request.state is RequestState.OVERDUE:
        parts.append(_late(request).strip(" ()"))
    return ", ".join(parts)


def _late(request: AgentRequest) -> str:
    return "" if request.overdue_for is None else f" (overdue by {_duration(request.overdue_for)})"


def _duration(seconds: float) -> str:
    for size, unit in _SIZES:
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
