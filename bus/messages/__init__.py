"""The messages on the bus: frozen pydantic models, plain JSON in the stream field ``__data__``.

Rules that keep rolling upgrades and other languages possible: every message has a version ``v``; unknown fields
are ignored; an unknown version is parked, never rejected; no message has a top-level field named ``data``. Durations
are seconds, instants are milliseconds since the epoch by the server's clock unless a field says otherwise.

A module of them is imported when a name of it is first used: agents, which are many, need only a few.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from bus.messages.agents import CapabilitySpec, Heartbeat, Register, Registration, Unregister
    from bus.messages.commands import (
        AgentCommand,
        CancelTasks,
        Command,
        Explain,
        Plan,
        Reprioritise,
        UpdateAgent,
        WatchTasks,
    )
    from bus.messages.control import (
        Assignment,
        CancelAttempt,
        ChangeOffer,
        Control,
        Instruction,
        RecallAttempt,
        Registered,
        Reregister,
        Superseded,
    )
    from bus.messages.message import (
        MAX_BODY_BYTES,
        VERSION,
        AgentIdField,
        Amount,
        Message,
        Resources,
        Seconds,
        SessionField,
        Tag,
        TaskIdField,
    )
    from bus.messages.outcomes import AgentTransition, EventBatch, Outcome, Reply, Transition
    from bus.messages.reports import HandBack, Report, TaskError, TaskResult, TaskUpdate
    from bus.messages.tasks import SubmitTask, TaskFields, TaskHeader

_HOMES: Final = {
    "agents": (
        "CapabilitySpec",
        "Heartbeat",
        "Register",
        "Registration",
        "Unregister",
    ),
    "commands": (
        "AgentCommand",
        "CancelTasks",
        "Command",
        "Explain",
        "Plan",
        "Reprioritise",
        "UpdateAgent",
        "WatchTasks",
    ),
    "control": (
        "Assignment",
        "CancelAttempt",
        "ChangeOffer",
        "Control",
        "Instruction",
        "RecallAttempt",
        "Registered",
        "Reregister",
        "Superseded",
    ),
    "message": (
        "MAX_BODY_BYTES",
        "VERSION",
        "AgentIdField",
        "Amount",
        "Message",
        "Resources",
        "Seconds",
        "SessionField",
        "Tag",
        "TaskIdField",
    ),
    "outcomes": (
        "AgentTransition",
        "EventBatch",
        "Outcome",
        "Reply",
        "Transition",
    ),
    "reports": (
        "HandBack",
        "Report",
        "TaskError",
        "TaskResult",
        "TaskUpdate",
    ),
    "tasks": (
        "SubmitTask",
        "TaskFields",
        "TaskHeader",
    ),
}
_HOME_OF: Final = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "MAX_BODY_BYTES",
    "VERSION",
    "AgentCommand",
    "AgentIdField",
    "AgentTransition",
    "Amount",
    "Assignment",
    "CancelAttempt",
    "CancelTasks",
    "CapabilitySpec",
    "ChangeOffer",
    "Command",
    "Control",
    "EventBatch",
    "Explain",
    "HandBack",
    "Heartbeat",
    "Instruction",
    "Message",
    "Outcome",
    "Plan",
    "RecallAttempt",
    "Register",
    "Registered",
    "Registration",
    "Reply",
    "Report",
    "Reprioritise",
    "Reregister",
    "Resources",
    "Seconds",
    "SessionField",
    "SubmitTask",
    "Superseded",
    "Tag",
    "TaskError",
    "TaskFields",
    "TaskHeader",
    "TaskIdField",
    "TaskResult",
    "TaskUpdate",
    "Transition",
    "Unregister",
    "UpdateAgent",
    "WatchTasks",
]


def __getattr__(name: str) -> object:
    """Import a public name when it is first used."""
    module = _HOME_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'bus.messages' has no attribute {name!r}")
    value = getattr(import_module(f"bus.messages.{module}"), name)
    globals()[name] = value
    return value
