"""Of dead letters: what is asked for, and what is answered."""

from pydantic import BaseModel, ConfigDict, Field

from bus.states import TaskPriority
from dispatcher.api.schemas.many import Meant


class PurgeRequest(Meant):
    """Dead letters that are to be deleted."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"where": {"reason": ["expired"]}}]})


class RequeueRequest(Meant):
    """Dead letters that are to be tried again."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"task_ids": ["default.order-17"], "reason": "disk is back"}]}
    )

    reason: str = Field("", max_length=1000, description="Kept with the tasks.")
    priority: TaskPriority | None = Field(None, description="Their priority from now on; else as it was.")


class DeadLettersDone(BaseModel):
    """What has become of dead letters: each that was meant is in one of these."""

    model_config = ConfigDict(frozen=True)

    done: tuple[str, ...] = Field(description="Requeued, or purged.")
    not_dead: tuple[str, ...] = Field(
        description="They are live, or have ended otherwise than FAILED: left as they are."
    )
    unknown: tuple[str, ...] = Field(description="There is no record of them, or none that can be read.")
    refused: tuple[str, ...] = Field(description="Their submissions were wrong: there is nothing that could run.")
