"""Clients and operators → leader: what is to become of tasks and agents, and questions about them."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, RootModel

from bus.filters import TaskFilter
from bus.messages.message import AgentIdField, Message, Seconds, SessionField, TaskIdField
from bus.messages.schedules import ScheduleCommand
from bus.messages.tasks import TaskFields
from bus.overrides import OfferChange
from bus.states import TaskPriority


class CancelTasks(Message):
    """Give up these tasks, whatever their state."""

    type: Literal["cancel"] = "cancel"
    task_ids: tuple[TaskIdField, ...] = Field(min_length=1, max_length=1000)
    reason: str = Field("", max_length=1000)
    by: str = Field("", max_length=200)
    grace: Seconds | None = Field(None, description="How long an agent has to stop it; then it is given up.")
    reply_to: SessionField | None = Field(None, description="Client that is told at once what has come of each.")


class TimeOutTask(Message):
    """Declare the attempt of a RUNNING task overdue: it ends as if its run_timeout were over."""

    type: Literal["timeout"] = "timeout"
    task_id: TaskIdField
    attempt: int | None = Field(None, ge=1, description="The attempt that is meant; absent: whichever runs.")
    reason: str = Field("", max_length=1000)
    by: str = Field("", max_length=200)
    reply_to: SessionField | None = Field(
        None, description="Client that is told what came of it, as `Reply.timed_out`."
    )


class Reprioritise(Message):
    """Give tasks another priority; those that have ended stay as they are."""

    type: Literal["reprioritise"] = "reprioritise"
    task_ids: tuple[TaskIdField, ...] = Field(min_length=1, max_length=1000)
    priority: TaskPriority


class Explain(Message):
    """Say on the replies stream of `reply_to` why a task waits, or why it is where it is."""

    type: Literal["explain"] = "explain"
    task_id: TaskIdField
    reply_to: SessionField


class Plan(Message):
    """Say on the replies stream of `reply_to` what would become of such a task."""

    type: Literal["plan"] = "plan"
    task: TaskFields
    reply_to: SessionField


class WatchTasks(Message):
    """Tell `reply_to` when these tasks end. Of those that have ended already nothing is told: their records say it."""

    type: Literal["watch"] = "watch"
    task_ids: tuple[TaskIdField, ...] = Field(min_length=1, max_length=1000)
    reply_to: SessionField


class CancelMatching(Message):
    """Give up every live task that the filter matches and that was submitted no later than this command.

    Submissions that are still unread then are cancelled when they are read, within a minute.
    """

    type: Literal["cancel_matching"] = "cancel_matching"
    where: TaskFilter
    reason: str = Field("", max_length=1000)
    by: str = Field("", max_length=200)
    reply_to: SessionField | None = Field(None, description="Client that is told how many, as `Reply.swept`.")


class ReprioritiseMatching(Message):
    """Give every live task that the filter matches, and that was submitted no later than this, another priority."""

    type: Literal["reprioritise_matching"] = "reprioritise_matching"
    where: TaskFilter
    priority: TaskPriority
    by: str = Field("", max_length=200)
    reply_to: SessionField | None = Field(None, description="Client that is told how many, as `Reply.swept`.")


class RequeueDead(Message):
    """Give FAILED tasks a new life: the same tasks, with their attempts, wait for an agent again."""

    type: Literal["requeue"] = "requeue"
    task_ids: tuple[TaskIdField, ...] = Field(min_length=1, max_length=1000)
    priority: TaskPriority | None = Field(None, description="Theirs from now on; absent: as it was.")
    reason: str = Field("", max_length=1000)
    by: str = Field("", max_length=200)
    reply_to: SessionField | None = Field(None, description="Client that is told what was done, as `Reply.dead`.")


class PurgeDead(Message):
    """Delete FAILED tasks for good, with all that is known of them."""

    type: Literal["purge"] = "purge"
    task_ids: tuple[TaskIdField, ...] = Field(min_length=1, max_length=1000)
    by: str = Field("", max_length=200)
    reply_to: SessionField | None = Field(None, description="Client that is told what was done, as `Reply.dead`.")


class AgentCommand(Message):
    """Pause one agent, resume it, let it finish and stop (drain), or finish and start anew (restart)."""

    type: Literal["pause", "resume", "drain", "restart"]
    agent_id: AgentIdField
    request: SessionField | None = Field(None, description="A name by which its progress can be followed.")
    reason: str = Field("", max_length=1000)
    by: str = Field("", max_length=200)
    lasts: Seconds | None = Field(None, description="A pause ends by itself after so long.")
    deadline: Seconds | None = Field(None, description="After so long, tasks of a drain or restart are stopped.")
    forget: bool = Field(default=False, description="Drop its record when a drain is done.")


class UpdateAgent(Message):
    """Change what one agent offers, until it is changed again: its next sessions, too."""

    type: Literal["update"] = "update"
    agent_id: AgentIdField
    request: SessionField | None = Field(None, description="A name by which its progress can be followed.")
    reason: str = Field("", max_length=1000)
    by: str = Field("", max_length=200)
    change: OfferChange


class Command(
    RootModel[
        Annotated[
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
            | ScheduleCommand,
            Field(discriminator="type"),
        ]
    ]
):
    """Anything on the commands stream."""

    model_config = ConfigDict(frozen=True)
