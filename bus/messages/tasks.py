"""Clients → leader: work to do."""

from typing import Final

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from bus.ids import SCHEDULE_ID_PATTERN
from bus.limits import Limit
from bus.messages.message import Message, Resources, Seconds, SessionField, Tag, TaskIdField
from bus.requirements import TaskRequirement, requirement_key
from bus.retries import RetryPolicy
from bus.states import TaskPriority

MAX_DEPTH: Final = 16
"""How deep children may be nested: a task that calls itself without an end is stopped here."""


class TaskFields(TaskRequirement):
    """What a task asks for, payload apart: shared by the wire and by `bus.TaskCreate`."""

    priority: TaskPriority = TaskPriority.MEDIUM
    run_timeout: Seconds | None = Field(None, description="Longest time one attempt may run.")
    queue_timeout: Seconds | None = Field(None, description="Longest time it may wait for an agent.")
    progress_timeout: Seconds | None = Field(
        None, description="Longest time without a word of progress; then its attempt is given up."
    )
    max_attempts: int = Field(3, ge=1, le=1000)
    retry: RetryPolicy | None = Field(
        None, description="How it is repeated; else as its capability, or the pool, says."
    )
    delay: Seconds = Field(0.0, description="Earliest start, counted from the submission's entry in the stream.")
    key: str | None = Field(None, min_length=1, max_length=256, description="Idempotency key.")
    fairness_key: str | None = Field(None, min_length=1, max_length=128)
    sticky: str | None = Field(
        None, min_length=1, max_length=128, description="Prefer the agent that had the last task of this key."
    )
    fail_fast: bool = Field(
        default=False, description="Fail at once if no agent that is known could ever run it, instead of waiting."
    )
    estimated_duration: Seconds | None = Field(None, description="Counts if it is longer than what was measured.")
    slots: int = Field(1, ge=1, le=100_000, description="Slots it takes in its agent.")
    resources: Resources = Field(default_factory=dict, description="What else of its agent's it takes: `{gpu: 1}`.")
    limits: tuple[Limit, ...] = Field((), max_length=8, description="Rates and concurrency it shares with others.")
    metadata: dict[str, JsonValue] = Field(default_factory=dict)
    tags: tuple[Tag, ...] = Field((), max_length=32)
    trace: str | None = Field(
        None, min_length=1, max_length=256, description="Text that its children inherit, such as a W3C traceparent."
    )

    @property
    def agent_requirement_key(self) -> str:
        """A text that is the same for all tasks that ask the same of an agent."""
        text = requirement_key(self.capability, self.version, self.requires, self.prefers)
        if self.slots != 1 or self.resources:
            text += f"|{self.slots}|{sorted(self.resources.items())}"
        return text

    @property
    def requirement_key(self) -> str:
        """A text that is the same for all tasks that ask the same of an agent and of the pool's limits."""
        text = self.agent_requirement_key
        if self.limits:
            text += "|" + "|".join(limit.model_dump_json(exclude_none=True) for limit in self.limits)
        return text


class ScheduleRun(BaseModel):
    """Which firing of a schedule a task is."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str = Field(pattern=SCHEDULE_ID_PATTERN, description="The schedule.")
    due: int = Field(description="Instant at which it was due; of one that was asked for, at which it was.")


class TaskHeader(TaskFields, Message):
    """All of a submission but its payload: what the leader reads, the payload passing it as bytes."""

    id: TaskIdField | None = Field(None, description="Client-made id; derived from the entry when absent.")
    reply_to: SessionField | None = Field(None, description="Client whose replies stream is told the outcome.")
    parent: TaskIdField | None = Field(None, description="Task that submits it; it is cancelled with that one.")
    parent_attempt: int | None = Field(None, ge=1, description="Attempt of the parent that submits it.")
    depth: int = Field(0, ge=0, description="One more than its parent's; 0 without one.")
    schedule: ScheduleRun | None = Field(None, description="Of a schedule's task: which firing it is.")


class SubmitTask(TaskHeader):
    """Do this work. Stored by the leader as it came; the agent reads it whole."""

    payload: JsonValue = None
