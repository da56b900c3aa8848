"""What happens to the scheduler: the readable messages of the inbound streams, each with its instant.

`at` is the time of the message's entry in its stream: the server's clock, not its sender's. None of them is
changed once it is made; why they are not `frozen` is said in `decisions`.
"""

from dataclasses import dataclass

from bus.messages import (
    AgentCommand,
    CancelTasks,
    Explain,
    Heartbeat,
    Plan,
    Register,
    Report,
    Reprioritise,
    ScheduleCommand,
    TaskError,
    TaskHeader,
    Unregister,
    WatchTasks,
)


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

    command: CancelTasks | Reprioritise | Explain | Plan | WatchTasks | AgentCommand | ScheduleCommand
    at: int


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


Event = Submitted | Refused | Duplicate | Commanded | SignedIn | SignedOut | Beat | Reported | Horizon | Blind
