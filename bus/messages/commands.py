"""Clients and operators → leader: what is to become of tasks and agents, and questions about them."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, RootModel

from bus.messages.message import AgentIdField, Message, SessionField, TaskIdField
from bus.messages.schedules import ScheduleCommand
from bus.messages.tasks import TaskFields
from bus.states import TaskPriority


class CancelTasks(Message):
    """Give up these tasks, whatever their state."""

    type: Literal["cancel"] = "cancel"
    task_ids: tuple[TaskIdField, ...] = Field(min_length=1, max_length=1000)
    reason: str = Field("", max_length=1000)
    by: str = Field("", max_length=200)


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


class AgentCommand(Message):
    """Drain (finish what it has, then stop) or restart (the same, then start anew) one agent."""

    type: Literal["drain", "restart"]
    agent_id: AgentIdField
    reason: str = Field("", max_length=1000)


class Command(
    RootModel[
        Annotated[
            CancelTasks | Reprioritise | Explain | Plan | WatchTasks | AgentCommand | ScheduleCommand,
            Field(discriminator="type"),
        ]
    ]
):
    """Anything on the commands stream."""

    model_config = ConfigDict(frozen=True)
