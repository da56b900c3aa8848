"""What operators change of what an agent offers."""

from pydantic import BaseModel, ConfigDict, Field

from bus.requirements import AGENT_ID, AttributeName, CapabilityField, Value


class Overrides(BaseModel):
    """What operators have changed of what an agent offers: applied to whatever its process says of itself."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    attributes: dict[AttributeName, Value] = Field(default_factory=dict, max_length=256)
    without: tuple[AttributeName, ...] = Field((), max_length=256, description="Attributes that it shall not have.")
    disabled: tuple[CapabilityField, ...] = Field((), max_length=256, description="Capabilities, in all versions.")
    slots: int | None = Field(None, ge=1, le=100_000)

    def changed(self, change: "OfferChange") -> "Overrides":
        """Return these with a change made; `agent.id`, which none can set, stays out of them."""
        before = Overrides() if change.reset else self
        kept = {name: value for name, value in before.attributes.items() if name not in change.without}
        without = {*before.without, *change.without} - set(change.attributes)
        disabled = ({*before.disabled} - set(change.enable)) | set(change.disable)
        return Overrides(
            attributes={name: value for name, value in {**kept, **change.attributes}.items() if name != AGENT_ID},
            without=tuple(sorted(without)),
            disabled=tuple(sorted(disabled)),
            slots=before.slots if change.slots is None else change.slots,
        )


class OfferChange(BaseModel):
    """How an operator changes what an agent offers."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    attributes: dict[AttributeName, Value] = Field(default_factory=dict, max_length=256)
    without: tuple[AttributeName, ...] = Field((), max_length=256, description="Attributes that it shall not have.")
    disable: tuple[CapabilityField, ...] = Field((), max_length=256)
    enable: tuple[CapabilityField, ...] = Field((), max_length=256)
    slots: int | None = Field(None, ge=1, le=100_000)
    reset: bool = Field(default=False, description="Forget all earlier changes first.")
