"""Of the system: what is answered."""

from pydantic import BaseModel, ConfigDict, Field

from bus.records import TaskQueueStatus


class LoopState(BaseModel):
    """How a loop of the leader is."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(description="`decide`, `commit`, `renew`, `horizon`, `intake` or `standing`.")
    age: float = Field(description="Seconds since it was seen, or for which it has been busy with one thing.")
    alive: bool = Field(description="Whether that is less than five seconds.")


class PoolState(BaseModel):
    """How a pool is."""

    model_config = ConfigDict(frozen=True)

    pool: str = Field(description="Its name.")
    leader: str | None = Field(description="The dispatcher that leads it; null if none does.")
    epoch: int = Field(description="The number of its lead; that of the latest lead if nobody leads.")
    lease_left: float | None = Field(description="Seconds for which it leads even if it falls silent now.")
    backlog: dict[str, int] = Field(description="Entries of each inbound stream that the leader has not consumed.")
    lag: float = Field(description="Seconds for which the oldest of these entries has waited; 0 without any.")
    loops: tuple[LoopState, ...] = Field(description="The leader's loops as it published them; empty without a leader.")
    queue: TaskQueueStatus = Field(description="How much waits and runs.")


class SystemStatus(BaseModel):
    """What runs, and who leads."""

    model_config = ConfigDict(frozen=True)

    version: str = Field(description="The version of this API process.")
    pools: tuple[PoolState, ...] = Field(description="Every pool that ever had a leader and that the token is for.")


class Check(BaseModel):
    """One thing that was looked at."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(description="What: `process`, `server`, or `leader`.")
    ok: bool = Field(description="Whether all is well with it.")
    needed: bool = Field(description="Whether the process is ready without it.")
    detail: str = Field("", description="What is wrong, in words.")


class Readiness(BaseModel):
    """Whether the process can serve, and if not why."""

    model_config = ConfigDict(frozen=True)

    ready: bool = Field(description="True if all checks that are needed are well.")
    checks: tuple[Check, ...] = Field(description="What was looked at.")


class Liveness(BaseModel):
    """The process answers."""

    model_config = ConfigDict(frozen=True)

    alive: bool = Field(True, description="Always true.")  # noqa: FBT003 - a field's default
