"""The messages on the bus: frozen pydantic models, plain JSON in the stream field ``__data__``.

Rules that keep rolling upgrades and other languages possible: every message has a version ``v``; unknown fields
are ignored; an unknown version is parked, never rejected; no message has a top-level field named ``data``. Durations
are seconds, instants are milliseconds since the epoch by the server's clock unless a field says otherwise.
"""

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
