"""Agents → leader: who they are, what they can do, and that they are alive."""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, RootModel

from bus.acceptance import Acceptance
from bus.limits import Rate
from bus.messages.message import AgentIdField, Message, Resources, Seconds, SessionField, TaskIdField
from bus.requirements import CapabilityField, Value
from bus.retries import RetryPolicy

KEPT_BEATS: Final = 100_000
"""Most heartbeats of a pool that wait to be read: with no dispatcher they would take 1.5 GB a day for 100 agents.

Trimming unread entries would lose work in any other stream. Here only an agent's latest beat counts, and the oldest go
first. So many are unread only when nobody has read for long; and a leader that comes counts an agent's silence from its
own coming, up to the oldest entry that it has not read: whoever lives beats again within an interval, and whoever does
not is rightly lost."""


class CapabilitySpec(BaseModel):
    """Something an agent can do."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: CapabilityField
    version: str = Field("1.0", max_length=64, description="PEP 440 version.")
    attributes: dict[str, Value] = Field(default_factory=dict)
    input_schema: dict[str, Any] | None = Field(None, description="JSON Schema of the payload.")
    output_schema: dict[str, Any] | None = Field(None, description="JSON Schema of the output.")
    rate: Rate | None = Field(None, description="Most starts per time, of all agents together: `10/s`.")
    concurrency: int | None = Field(None, ge=1, description="Most tasks at once, of all agents together.")
    max_pending: int | None = Field(
        None, ge=1, le=10_000_000, description="Most tasks of it that may wait; more are refused to their submitters."
    )
    retry: RetryPolicy | None = Field(None, description="How its tasks are repeated that do not say it themselves.")
    exclusive: bool = Field(
        default=False, description="Must never run twice at once: cancelled when the lease is unsure."
    )


class Register(Message):
    """An agent signs in, or signs in anew. Repeating it is harmless."""

    type: Literal["register"] = "register"
    agent_id: AgentIdField
    session: SessionField
    capabilities: tuple[CapabilitySpec, ...] = Field(min_length=1, max_length=256)
    slots: int = Field(1, ge=1, le=100_000)
    resources: Resources = Field(default_factory=dict, description="What it has for its tasks: `{gpu: 2, mem_gb: 12}`.")
    rate: Rate | None = Field(None, description="Most tasks per time that it is to be given: `5/s`.")
    attributes: dict[str, Value] = Field(default_factory=dict)
    accepts: Acceptance = Field((), description="Conditions on tasks: it gets only those that meet all of them.")
    metadata: dict[str, JsonValue] = Field(default_factory=dict)
    heartbeat_interval: Seconds = 1.0
    lease: Seconds = Field(5.0, ge=0.1)
    revision: int = Field(0, ge=0, description="Counts the registrations of a session that say something new.")
    update: int = Field(0, ge=0, description="Number of the last `update` that it was told of.")
    update_error: str | None = Field(None, max_length=1000, description="Why that could not be done.")


class Unregister(Message):
    """An agent signs out; what it still held is given to others."""

    type: Literal["unregister"] = "unregister"
    agent_id: AgentIdField
    session: SessionField
    reason: str = Field("", max_length=1000)
    forget: bool = Field(
        default=False, description="It will not come back: drop its record when its tasks are given on."
    )


class Registration(RootModel[Annotated[Register | Unregister, Field(discriminator="type")]]):
    """Anything on the registrations stream."""

    model_config = ConfigDict(frozen=True)


class Heartbeat(Message):
    """An agent is alive, and holds these attempts."""

    agent_id: AgentIdField
    session: SessionField
    seq: int = Field(0, ge=0)
    holding: tuple[tuple[TaskIdField, int], ...] = Field(
        (), description="(task, attempt) received and not yet reported."
    )
    inbox: str = Field("0-0", description="Last entry of its assignments stream that it has read.")
    lag: Seconds = Field(0.0, description="How late its event loop is.")
    occupied: int = Field(0, ge=0, description="Slots in which code of attempts that are over still runs.")
    draining: bool = Field(default=False, description="It takes nothing new and will end.")
    paused: bool = False
    obeys: int | None = Field(None, ge=0, description="Number of the last instruction that it heeds; 0: of none.")
    updated: int | None = Field(None, ge=0, description="Number of the last `update` that it was told of; 0: of none.")
