"""Leader → one agent: assignments, and what else it is told."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, RootModel

from bus.messages.message import Message, Seconds, TaskIdField
from bus.messages.tasks import SubmitTask
from bus.overrides import Overrides


class Assignment(Message):
    """Run this task. Entries appear in the order of their score, lower first."""

    task_id: TaskIdField
    attempt: int
    session: str
    score: int
    assigned_at: int
    version: str | None = Field(None, description="Version that was matched, if the agent offers the name in several.")
    task: SubmitTask


class Registered(Message):
    """The leader knows this session now; assignments may follow."""

    type: Literal["registered"] = "registered"
    session: str
    revision: int = Field(0, description="That of the registration which is meant.")


class Reregister(Message):
    """The leader does not know this session: sign in again."""

    type: Literal["reregister"] = "reregister"
    session: str


class Superseded(Message):
    """Another, newer session has this agent's id: stop."""

    type: Literal["superseded"] = "superseded"
    session: str
    by: str


class CancelAttempt(Message):
    """Stop working on this attempt; its result no longer counts unless it is reported first."""

    type: Literal["cancel"] = "cancel"
    session: str
    task_id: TaskIdField
    attempt: int
    reason: str = ""
    grace: float | None = Field(None, description="Seconds that its code may take to stop; the agent's own if absent.")
    confirm: bool = Field(
        default=False, description="The attempt is still current: say how far it is (`cancel`), and how it ends."
    )


class RecallAttempt(Message):
    """Hand this attempt back (`returned`) if it has not begun; if it has, nothing changes."""

    type: Literal["recall"] = "recall"
    session: str
    task_id: TaskIdField
    attempt: int


class Instruction(Message):
    """Pause, resume, drain or restart. May come again; one that is not newer than the last one heeded is none."""

    type: Literal["pause", "resume", "drain", "restart"]
    session: str
    number: int = Field(0, description="Later instructions have higher numbers; heartbeats confirm it in `obeys`.")
    reason: str = ""
    within: Seconds | None = Field(None, description="When tasks that still run are stopped; None: the agent's choice.")


class ChangeOffer(Message):
    """Register anew with these changes made to what the agent says of itself, instead of earlier ones."""

    type: Literal["update"] = "update"
    session: str
    number: int = Field(description="The registration confirms it in `update`.")
    overrides: Overrides


class Control(
    RootModel[
        Annotated[
            Registered | Reregister | Superseded | CancelAttempt | RecallAttempt | Instruction | ChangeOffer,
            Field(discriminator="type"),
        ]
    ]
):
    """Anything on an agent's control stream."""

    model_config = ConfigDict(frozen=True)
