"""The messages on the bus: frozen pydantic models, plain JSON in the stream field ``__data__``.

Rules that keep rolling upgrades and other languages possible: every message has a version ``v``; unknown fields
are ignored; an unknown version is parked, never rejected; no message has a top-level field named ``data``. Durations
are seconds, instants are milliseconds since the epoch by the server's clock unless a field says otherwise.

A module is imported with the first of its messages that is used: an agent has no use for most of them, and is small.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from bus.messages.agents import CapabilitySpec, Heartbeat, Register, Registration, Unregister
    from bus.messages.commands import (
        AgentCommand,
        CancelMatching,
        CancelTasks,
        Command,
        Explain,
        Plan,
        PurgeDead,
        Reprioritise,
        ReprioritiseMatching,
        RequeueDead,
        TimeOutTask,
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
        READS,
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
    from bus.messages.outcomes import (
        AgentTransition,
        EventBatch,
        OfCancel,
        OfDead,
        OfTimeOut,
        Outcome,
        Reply,
        Swept,
        Transition,
    )
    from bus.messages.reports import HandBack, Report, TaskError, TaskResult, TaskUpdate
    from bus.messages.schedules import (
        MAX_SCHEDULE_BYTES,
        DeleteSchedule,
        Missed,
        Overlap,
        PauseSchedule,
        PutSchedule,
        ResumeSchedule,
        ScheduleCommand,
        ScheduledTask,
        ScheduleIdField,
        ScheduleInfo,
        ScheduleProgress,
        ScheduleSpec,
        TriggerSchedule,
    )
    from bus.messages.tasks import MAX_DEPTH, ScheduleRun, SubmitTask, TaskFields, TaskHeader

_MODULES: Final = ("message", "agents", "reports", "tasks", "commands", "control", "outcomes", "schedules")
"""Where a name is looked for, in this order."""

__all__ = [
    "MAX_BODY_BYTES",
    "MAX_DEPTH",
    "MAX_SCHEDULE_BYTES",
    "READS",
    "VERSION",
    "AgentCommand",
    "AgentIdField",
    "AgentTransition",
    "Amount",
    "Assignment",
    "CancelAttempt",
    "CancelMatching",
    "CancelTasks",
    "CapabilitySpec",
    "ChangeOffer",
    "Command",
    "Control",
    "DeleteSchedule",
    "EventBatch",
    "Explain",
    "HandBack",
    "Heartbeat",
    "Instruction",
    "Message",
    "Missed",
    "OfCancel",
    "OfDead",
    "OfTimeOut",
    "Outcome",
    "Overlap",
    "PauseSchedule",
    "Plan",
    "PurgeDead",
    "PutSchedule",
    "RecallAttempt",
    "Register",
    "Registered",
    "Registration",
    "Reply",
    "Report",
    "Reprioritise",
    "ReprioritiseMatching",
    "RequeueDead",
    "Reregister",
    "Resources",
    "ResumeSchedule",
    "ScheduleCommand",
    "ScheduleIdField",
    "ScheduleInfo",
    "ScheduleProgress",
    "ScheduleRun",
    "ScheduleSpec",
    "ScheduledTask",
    "Seconds",
    "SessionField",
    "SubmitTask",
    "Superseded",
    "Swept",
    "Tag",
    "TaskError",
    "TaskFields",
    "TaskHeader",
    "TaskIdField",
    "TaskResult",
    "TaskUpdate",
    "TimeOutTask",
    "Transition",
    "TriggerSchedule",
    "Unregister",
    "UpdateAgent",
    "WatchTasks",
]


def __getattr__(name: str) -> object:
    """Import a message when it is first used."""
    if name in __all__:
        for module in _MODULES:
            found: object = getattr(import_module(f"bus.messages.{module}"), name, None)
            if found is not None:
                globals()[name] = found
                return found
    raise AttributeError(f"module 'bus.messages' has no attribute {name!r}")
