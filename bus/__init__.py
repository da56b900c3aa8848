"""The vocabulary of the bus: names, messages, connections, and the `Client` that publishes tasks and awaits results.

What a user of Callboard needs is here; it is imported when first used, so that naming a status costs no connection
code.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from bus.agent_requests import AgentRequest, RequestKind, RequestState
    from bus.cancelling import CancelReport
    from bus.client import Client
    from bus.durability import Durability, Replicated
    from bus.errors import (
        AgentRequestError,
        ApiProblemError,
        ApiUnavailableError,
        BusAddressError,
        BusUnavailableError,
        CallboardError,
        ClientClosedError,
        ClientTooOldError,
        DurabilityNotProvenError,
        DurabilityUnavailableError,
        NoLeaderError,
        NotDeadError,
        NotRunningError,
        PayloadTooLargeError,
        QueueFullError,
        RequirementSyntaxError,
        ScheduleError,
        SubmissionError,
        TaskCancelledError,
        TaskFailedError,
        TaskOutcomeError,
        TaskTimeoutError,
        UnknownAgentError,
        UnknownScheduleError,
        UnknownTaskError,
        UnreadableTaskError,
    )
    from bus.filters import TaskFilter
    from bus.handle import TaskHandle
    from bus.http_client import HttpClient
    from bus.http_events import HttpEvent
    from bus.messages import Missed, OfDead, OfTimeOut, Overlap, ScheduleInfo, TaskError, TaskResult, TaskUpdate
    from bus.records import AgentInfo, AgentWorkload, Task, TaskCreate, TaskInDB, TaskQueueStatus
    from bus.requirement_text import format_requirement, parse_requirement
    from bus.requirements import AnyOf, Condition, Operator, Preference, TaskRequirement
    from bus.states import AgentHealth, AgentStatus, FailureReason, TaskPriority, TaskStatus

_HOMES: Final = {
    "bus.agent_requests": ("AgentRequest", "RequestKind", "RequestState"),
    "bus.cancelling": ("CancelReport",),
    "bus.client": ("Client",),
    "bus.errors": (
        "AgentRequestError",
        "ApiProblemError",
        "ApiUnavailableError",
        "BusAddressError",
        "BusUnavailableError",
        "CallboardError",
        "ClientClosedError",
        "ClientTooOldError",
        "DurabilityNotProvenError",
        "DurabilityUnavailableError",
        "NoLeaderError",
        "NotDeadError",
        "NotRunningError",
        "PayloadTooLargeError",
        "QueueFullError",
        "RequirementSyntaxError",
        "ScheduleError",
        "SubmissionError",
        "TaskCancelledError",
        "TaskFailedError",
        "TaskOutcomeError",
        "TaskTimeoutError",
        "UnknownAgentError",
        "UnknownScheduleError",
        "UnknownTaskError",
        "UnreadableTaskError",
    ),
    "bus.filters": ("TaskFilter",),
    "bus.handle": ("TaskHandle",),
    "bus.durability": ("Durability", "Replicated"),
    "bus.http_client": ("HttpClient",),
    "bus.http_events": ("HttpEvent",),
    "bus.messages": (
        "Missed",
        "OfDead",
        "OfTimeOut",
        "Overlap",
        "ScheduleInfo",
        "TaskError",
        "TaskResult",
        "TaskUpdate",
    ),
    "bus.records": ("AgentInfo", "AgentWorkload", "Task", "TaskCreate", "TaskInDB", "TaskQueueStatus"),
    "bus.requirement_text": ("format_requirement", "parse_requirement"),
    "bus.requirements": ("AnyOf", "Condition", "Operator", "Preference", "TaskRequirement"),
    "bus.states": ("AgentHealth", "AgentStatus", "FailureReason", "TaskPriority", "TaskStatus"),
}
_HOME_OF: Final = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AgentHealth",
    "AgentInfo",
    "AgentRequest",
    "AgentRequestError",
    "AgentStatus",
    "AgentWorkload",
    "AnyOf",
    "ApiProblemError",
    "ApiUnavailableError",
    "BusAddressError",
    "BusUnavailableError",
    "CallboardError",
    "CancelReport",
    "Client",
    "ClientClosedError",
    "ClientTooOldError",
    "Condition",
    "Durability",
    "DurabilityNotProvenError",
    "DurabilityUnavailableError",
    "FailureReason",
    "HttpClient",
    "HttpEvent",
    "Missed",
    "NoLeaderError",
    "NotDeadError",
    "NotRunningError",
    "OfDead",
    "OfTimeOut",
    "Operator",
    "Overlap",
    "PayloadTooLargeError",
    "Preference",
    "QueueFullError",
    "Replicated",
    "RequestKind",
    "RequestState",
    "RequirementSyntaxError",
    "ScheduleError",
    "ScheduleInfo",
    "SubmissionError",
    "Task",
    "TaskCancelledError",
    "TaskCreate",
    "TaskError",
    "TaskFailedError",
    "TaskFilter",
    "TaskHandle",
    "TaskInDB",
    "TaskOutcomeError",
    "TaskPriority",
    "TaskQueueStatus",
    "TaskRequirement",
    "TaskResult",
    "TaskStatus",
    "TaskTimeoutError",
    "TaskUpdate",
    "UnknownAgentError",
    "UnknownScheduleError",
    "UnknownTaskError",
    "UnreadableTaskError",
    "format_requirement",
    "parse_requirement",
]


def __getattr__(name: str) -> object:
    """Import a public name when it is first used."""
    module = _HOME_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'bus' has no attribute {name!r}")
    value = getattr(import_module(module), name)
    globals()[name] = value
    return value
