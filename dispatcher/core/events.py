"""What happens to the scheduler: the readable messages of the inbound streams, each with its instant.

`at` is the time of the message's entry in its stream: the server's clock, not its sender's. None of them is
changed once it is made; why they are not `frozen` is said in `decisions`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from bus.messages import (
    AgentCommand,
    CancelMatching,
    CancelTasks,
    Explain,
    Heartbeat,
    Plan,
    PurgeDead,
    Register,
    Report,
    Reprioritise,
    ReprioritiseMatching,
    RequeueDead,
    ScheduleCommand,
    TaskError,
    TaskHeader,
    TimeOutTask,
    Unregister,
    UpdateAgent,
    WatchTasks,
)
from dispatcher.core.record import StoredTask


@dataclass(slots=True)
class Submitted:
    """A task was submitted; `body` is its message as it came."""

    task_id: str
    header: TaskHeader
    body: bytes
    at: int


@dataclass(slots=True)
class Refused:
    """A submission could be identified, but is wrong: it becomes a FAILED task."""

    task_id: str
    body: bytes
    error: TaskError
    reply_to: str | None
    at: int


@dataclass(slots=True)
class Duplicate:
    """The ledger had this task already when it was to be accepted: forget it."""

    task_id: str


@dataclass(slots=True)
class Commanded:
    """A client or operator wants something."""

    command: (
        CancelTasks
        | CancelMatching
        | TimeOutTask
        | Reprioritise
        | ReprioritiseMatching
        | RequeueDead
        | PurgeDead
        | Explain
        | Plan
        | WatchTasks
        | AgentCommand
        | UpdateAgent
        | ScheduleCommand
    )
    """`RequeueDead` and `PurgeDead` mean nothing to the scheduler before they have become `OfDeadLetters`."""
    at: int


@dataclass(slots=True)
class OfDeadLetters:
    """An operator wants something of tasks that have ended; it comes with what the ledger has of them."""

    command: RequeueDead | PurgeDead
    found: Mapping[str, StoredTask]
    """By their ids; who is missing has no record, or none that can be read."""
    at: int
    """Never changed, not even if the clock here is behind: with `command.by` it tells whether it was read before."""


@dataclass(slots=True)
class SignedIn:
    """An agent registered."""

    message: Register
    at: int


@dataclass(slots=True)
class SignedOut:
    """An agent left."""

    message: Unregister
    at: int


@dataclass(slots=True)
class Beat:
    """An agent is alive."""

    message: Heartbeat
    at: int


@dataclass(slots=True)
class Reported:
    """An agent reports on its tasks."""

    message: Report
    at: int


@dataclass(slots=True)
class Horizon:
    """All that agents wrote before `at` has been handed to the scheduler.

    Leases, run timeouts and changes of session act on this instant, not on the clock: finished work whose report is
    still unread is never run again, and a backlog of heartbeats never looks like a lost fleet.
    """

    at: int


@dataclass(slots=True)
class Blind:
    """The leader could not see the agents for `duration_ms`: nobody's lease runs during that time."""

    duration_ms: int


@dataclass(slots=True)
class Found:
    """What the ledger has of a task that was asked for: its guard, empty if there is no record."""

    task_id: str
    guard: str


@dataclass(slots=True)
class Strays:
    """These tasks count for the bound of `scope` and are not known to wait: their submissions are not unread."""

    scope: str
    task_ids: tuple[str, ...]


Event = (
    Submitted
    | Refused
    | Duplicate
    | Found
    | Strays
    | Commanded
    | OfDeadLetters
    | SignedIn
    | SignedOut
    | Beat
    | Reported
    | Horizon
    | Blind
)
