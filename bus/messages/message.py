"""What all messages share: the version, the types of their fields, and their base class."""

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from bus.ids import AGENT_ID_PATTERN, SESSION_PATTERN, TASK_ID_PATTERN
from bus.requirements import AttributeName

VERSION: Final = 1
"""The major version of all messages this code writes."""

READS: Final = 1
"""The highest major version this code reads. A release reads a version before any release writes it: then two that
follow each other work side by side, whoever is upgraded first."""

MAX_BODY_BYTES: Final = 1024 * 1024
"""Default limit of one message's body."""

TaskIdField = Annotated[str, Field(pattern=TASK_ID_PATTERN)]
AgentIdField = Annotated[str, Field(pattern=AGENT_ID_PATTERN)]
SessionField = Annotated[str, Field(pattern=SESSION_PATTERN)]
Seconds = Annotated[float, Field(ge=0, le=366 * 86_400, allow_inf_nan=False)]
Amount = Annotated[float, Field(gt=0, le=1e12, allow_inf_nan=False)]
Resources = Annotated[dict[AttributeName, Amount], Field(max_length=32)]
Tag = Annotated[str, Field(min_length=1, max_length=64)]


class Message(BaseModel):
    """What all messages share."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="constants")

    v: int = Field(VERSION, ge=1, description="Major version of the message.")
