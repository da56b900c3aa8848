"""What is asked of agents, and how far that has come."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bus.agent_requests import AgentRequest, RequestState
from bus.messages import Seconds
from bus.overrides import OfferChange
from bus.requirements import AttributeName, CapabilityField, Value

_Instant = Annotated[int, Field(ge=0, le=32_503_680_000_000)]


class Because(BaseModel):
    """Why something is asked of an agent."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra={"examples": [{"reason": "new release"}]})

    reason: str = Field("", max_length=1000, description="Kept with the agent, and passed on to it.")


class PauseRequest(BaseModel):
    """Why, and for how long, an agent is to be paused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", json_schema_extra={"examples": [{"note": "disk swap", "lasts": 600}]}
    )

    note: str = Field("", max_length=1000, description="Shown with the agent.")
    lasts: Seconds | None = Field(None, description="Seconds after which it is resumed; or give `until`.")
    until: _Instant | None = Field(
        None, description="When it is resumed; ms since the epoch. Without both: when somebody resumes it."
    )

    @model_validator(mode="after")
    def _one_end(self) -> Self:
        if self.lasts is not None and self.until is not None:
            raise ValueError("a pause ends once: give one of `lasts` and `until`")
        return self


class LeaveRequest(Because):
    """Why an agent is to drain or restart, and how long its tasks may take."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "new release", "deadline": 60}]})

    deadline: Seconds | None = Field(None, description="Seconds after which tasks that still run are stopped.")


class CapabilitiesPatch(Because):
    """How what an agent offers is changed; what is absent stays."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"disable": ["text.count"], "attributes": {"region": "us"}, "slots": 8}]}
    )

    disable: tuple[CapabilityField, ...] = Field(
        (), max_length=256, description="Capabilities that get nothing new, in all versions; what runs goes on."
    )
    enable: tuple[CapabilityField, ...] = Field((), max_length=256, description="Capabilities that get work again.")
    attributes: dict[AttributeName, Value] = Field(
        default_factory=dict, max_length=256, description="Attributes of its own that it has from now on."
    )
    remove_attributes: tuple[AttributeName, ...] = Field(
        (), max_length=256, description="Attributes that it shall not have."
    )
    slots: int | None = Field(None, ge=1, le=100_000, description="Tasks that it may run at once.")
    reset: bool = Field(default=False, description="Forget all that was changed before, first.")

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if OfferChange.model_validate(self.change) == OfferChange():
            raise ValueError("nothing is changed: give attributes, remove_attributes, disable, enable, slots, or reset")
        return self

    @property
    def change(self) -> dict[str, Any]:
        """The fields of `bus.overrides.OfferChange`."""
        names = {"disable", "enable", "attributes", "slots", "reset"}
        return {name: getattr(self, name) for name in names} | {"without": self.remove_attributes}


class Requested(BaseModel):
    """What is asked of an agent; the request is stored, and the leader tells the agent."""

    model_config = ConfigDict(frozen=True)

    agent_id: str = Field(description="The agent's id.")
    requested: str = Field(description="What it is asked for.", examples=["restart"])
    request: str = Field(description="The request's id; the agent's record shows it with its state.")
    state: RequestState = Field(
        description="`requested`; `confirmed`: the agent is at it; `done`; `overdue`: it is neither when it should be, "
        "and may still be; `refused`: it cannot be done. Without `wait` nobody has looked yet: `requested`."
    )
    details: AgentRequest | None = Field(None, description="The request as the leader has it, if it was waited for.")
