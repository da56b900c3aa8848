"""How failed attempts are repeated: what a task, or for all its tasks a capability, may say of it."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Pause = Annotated[float, Field(ge=0, le=366 * 86_400, allow_inf_nan=False)]
ErrorType = Annotated[str, Field(min_length=1, max_length=200)]


class RetryPolicy(BaseModel):
    """Waits that grow with each failure: up to `base * factor ** (failures - 1)` seconds, and never above `cap`.

    With `jitter` the wait is drawn evenly between nothing and that bound, which spreads a burst of failures best. How
    often a task is tried is its `max_attempts`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: Pause = Field(1.0, description="Seconds; the bound of the first wait.")
    factor: float = Field(2.0, ge=1, le=100)
    cap: Pause = Field(300.0, description="Seconds; the bound of any wait.")
    jitter: bool = True
    never_for: tuple[ErrorType, ...] = Field(
        (),
        max_length=64,
        description="Types of errors after which it is not tried again: `ValueError`, `my.app.Refused`.",
    )
