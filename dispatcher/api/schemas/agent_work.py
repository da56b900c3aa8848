"""Of agents over HTTP: what they say, and what they are answered."""

from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator
from pydantic.config import JsonDict

from bus.acceptance import Acceptance
from bus.limits import Rate
from bus.messages import (
    AgentIdField,
    CapabilitySpec,
    Resources,
    Seconds,
    SessionField,
    SubmitTask,
    TaskError,
    TaskIdField,
)
from bus.messages.reports import MAX_CHUNK
from bus.overrides import Overrides
from bus.requirements import Value

MAX_HELD: Final = 20_000
"""Attempts that one heartbeat may list."""
ENTRY_PATTERN: Final = r"^[0-9]{1,19}-[0-9]{1,19}$"
CursorField = Annotated[str, Field(pattern=ENTRY_PATTERN)]
"""A place in one of an agent's streams: what is behind it has not been read."""

_SESSION: Final = "019ac3f2b1c7d0e5a9100000a3"


def _example(**fields: JsonValue) -> JsonDict:
    return {"examples": [fields]}


class RegisterAgent(BaseModel):
    """An agent signs in, or signs in anew with its session: to offer something else, or because it was told to."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        json_schema_extra=_example(
            agent_id="js-1",
            capabilities=[{"name": "text.shout", "version": "1.0", "attributes": {"languages": ["en"]}}],
            slots=2,
            endpoint="http://10.0.0.7:9000/",
        ),
    )

    agent_id: AgentIdField = Field(description="Its id; a token of scope `agent:ID` is good for this one only.")
    session: SessionField | None = Field(
        None,
        description="Its present session, to sign in anew: its tasks stay. Absent: a new life of the agent begins.",
    )
    capabilities: tuple[CapabilitySpec, ...] = Field(min_length=1, max_length=256, description="What it can do.")
    slots: int = Field(1, ge=1, le=100_000, description="How many tasks it runs at once.")
    resources: Resources = Field(default_factory=dict, description="What it has for its tasks: `{gpu: 2, mem_gb: 12}`.")
    rate: Rate | None = Field(None, description="Most tasks per time that it is to be given: `5/s`.")
    attributes: dict[str, Value] = Field(default_factory=dict, description="What tasks' conditions look at.")
    accepts: Acceptance = Field((), description="Conditions on tasks: it gets only those that meet all of them.")
    endpoint: str | None = Field(
        None,
        pattern=r"^https?://[!-~]{1,2000}$",
        description="Where it can be reached: kept as `endpoint` of its metadata, and shown; never called.",
    )
    metadata: dict[str, JsonValue] = Field(
        default_factory=dict, max_length=100, description="Kept and shown, not looked at."
    )
    heartbeat_interval: float = Field(1.0, ge=0.1, le=3600, description="Seconds between its heartbeats.")
    lease: float = Field(
        5.0, ge=0.3, le=86_400, description="Seconds of silence after which it is lost: three heartbeats at least."
    )

    @model_validator(mode="after")
    def _a_lost_beat_is_not_the_end(self) -> Self:
        if self.heartbeat_interval * 3 > self.lease + 1e-6:  # 3 * 0.1 is a little more than 0.3
            raise ValueError(f"lease: make it three heartbeats long at least, {3 * self.heartbeat_interval:g} s")
        return self


class RegisteredAgent(BaseModel):
    """The leader knows the session: assignments may follow."""

    model_config = ConfigDict(frozen=True)

    agent_id: str = Field(description="The agent's id.")
    pool: str = Field(description="The pool that it works in.")
    session: str = Field(description="This life of the agent: goes with all that it says.", examples=[_SESSION])
    revision: int = Field(description="Number of this registration; later ones have higher numbers.")
    heartbeat_interval: float = Field(description="Seconds between its heartbeats.")
    lease: float = Field(description="Seconds of silence after which it is lost, and its tasks go to others.")
    slots: int = Field(description="How many tasks it runs at once, as operators want it.")
    capabilities: tuple[str, ...] = Field(description="What it will be given: without what operators have disabled.")
    cursor: str = Field(description="The `after` of its first heartbeat.", examples=["1795560710652-0"])


class HeldAttempt(BaseModel):
    """An attempt that the agent has."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task_id: TaskIdField = Field(description="The task's id.")
    attempt: int = Field(ge=1, le=2**31, description="Number of the attempt.")


class AgentHeartbeat(BaseModel):
    """The agent is alive, and holds these attempts."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        json_schema_extra=_example(
            session=_SESSION, holding=[{"task_id": "default.order-17", "attempt": 1}], after="1795560710652-0"
        ),
    )

    session: SessionField = Field(description="The session that the registration answered.")
    holding: tuple[HeldAttempt, ...] = Field(
        (),
        max_length=MAX_HELD,
        description="Each attempt that it was given and has not reported the end of, begun or not. They are not handed "
        "out again. One that two heartbeats leave out is taken for undelivered, and given out anew.",
    )
    after: CursorField | None = Field(
        None, description="`cursor` of the last answer that was heeded: what came up to there is not told again."
    )
    heeded: int = Field(
        0, ge=0, le=2**53, description="Highest `number` of the instructions that are heeded; 0: none yet."
    )
    occupied: int = Field(
        0, ge=0, le=100_000, description="Slots in which code of attempts still runs whose end was reported without it."
    )
    lag: Seconds = Field(0.0, description="How late its event loop is: above two seconds it is given nothing new.")
    paused: bool = Field(default=False, description="It has heeded a pause.")
    draining: bool = Field(
        default=False, description="It takes nothing new. Once it holds nothing it is signed out, and told `over`."
    )


class ControlMessage(BaseModel):
    """Something that the agent is told; a field that says nothing is left out."""

    model_config = ConfigDict(frozen=True)

    type: Literal["cancel", "recall", "pause", "resume", "drain", "restart", "update", "register"] = Field(
        description="`cancel`: stop the attempt, report it as cancelled. `recall`: hand the attempt back if it has not "
        "begun. `pause`: nothing new will come. `resume`: it may come again. `drain`: finish, take nothing new, end. "
        "`restart`: the same, and start anew. `update` and `register`: register again, with the same session."
    )
    task_id: str | None = Field(None, description="The task of the attempt that is meant.")
    attempt: int | None = Field(None, description="The attempt that is meant.")
    grace: float | None = Field(None, description="Seconds that the code of a cancelled attempt may take to stop.")
    confirm: bool | None = Field(
        None, description="True of a cancel that is to be answered by its result; the result of others does not count."
    )
    number: int | None = Field(None, description="Number of an instruction: say it as `heeded`.")
    within: float | None = Field(None, description="Seconds after which what still runs is to be stopped.")
    overrides: Overrides | None = Field(None, description="What operators want of what it offers; applied by the API.")
    reason: str | None = Field(None, description="Why.")


class HeartbeatAnswer(BaseModel):
    """What the agent is told. Each message comes again until `after`, or what else is said, shows that it is known."""

    model_config = ConfigDict(
        frozen=True,
        json_schema_extra=_example(
            control=[{"type": "cancel", "task_id": "default.order-17", "attempt": 1, "confirm": True, "grace": 5.0}],
            cursor="1795560710700-0",
            over=False,
        ),
    )

    control: tuple[ControlMessage, ...] = Field(description="What it is told, in the order of its saying.")
    cursor: str = Field(description="The `after` of the next heartbeat, once all of this is heeded.")
    over: bool = Field(description="The agent had to leave, holds nothing, and is signed out: the session is over.")


class HandedAssignment(BaseModel):
    """One attempt of a task, to be made by this agent."""

    model_config = ConfigDict(frozen=True)

    task_id: str = Field(description="The task's id.", examples=["default.order-17"])
    attempt: int = Field(description="Number of the attempt: goes with all that is said of it.")
    score: int = Field(description="Of several, begin the lowest first.")
    assigned_at: int = Field(description="When it was given to the agent; ms since the epoch.")
    version: str | None = Field(None, description="Version of the capability to run, if the agent offers several.")
    task: SubmitTask = Field(description="The task as it was submitted: `capability`, `payload` and what else it has.")


class Assignments(BaseModel):
    """What the agent is to do."""

    model_config = ConfigDict(frozen=True)

    assignments: tuple[HandedAssignment, ...] = Field(description="Attempts to make; empty when the time is over.")
    cursor: str = Field(description="The `after` of the next poll: what came up to there is not handed out again.")


class TaskStart(BaseModel):
    """The agent has begun."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra=_example(session=_SESSION, attempt=1))

    session: SessionField = Field(description="The session that the attempt was given to.")
    attempt: int = Field(ge=1, le=2**31, description="Number of the attempt.")


class TaskProgress(TaskStart):
    """How far the agent is."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        json_schema_extra=_example(session=_SESSION, attempt=1, progress=0.5, note="half way"),
    )

    progress: float | None = Field(None, ge=0, le=1, description="How far it is, from 0 to 1.")
    note: str | None = Field(None, max_length=1000, description="What it is at.")
    extend: Seconds | None = Field(
        None, description="Seconds that it may take beyond `run_timeout`, all extensions counted together."
    )
    chunk: str | None = Field(
        None,
        max_length=MAX_CHUNK,
        description="A piece of what it puts out as it runs: told by `/tasks/{task_id}/events`, and kept nowhere.",
    )
    waiting: bool | None = Field(
        None, description="It waits for children of the task, and does without its slots; false: it goes on."
    )
    cancel: Literal["delivered", "acknowledged"] | None = Field(
        None, description="How far a cancel is: the agent knows, or its code has been told."
    )


class ReportedError(TaskError):
    """What went wrong."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: str = Field("Error", max_length=200, description="Its kind: lists and rules of retrying go by it.")


class ReportedResult(TaskStart):
    """How the attempt ended: `output`, or one of `error`, `cancelled` and `returned`."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"session": _SESSION, "attempt": 1, "output": {"words": 6}},
                {
                    "session": _SESSION,
                    "attempt": 1,
                    "error": {"type": "NoSuchOrder", "message": "17"},
                    "retry_after": 5,
                },
                {"session": _SESSION, "attempt": 1, "cancelled": True},
            ]
        },
    )

    output: JsonValue = Field(None, description="What came of it, JSON.")
    error: ReportedError | None = Field(None, description="What went wrong: the attempt has failed.")
    retryable: bool = Field(default=True, description="False: another attempt would fail as well.")
    retry_after: Seconds | None = Field(None, description="Seconds until another attempt makes sense.")
    rejected: bool = Field(default=False, description="The task itself is wrong: it fails as `rejected`, for good.")
    timed_out: bool = Field(default=False, description="It took longer than its `run_timeout`: it failed as `timeout`.")
    cancelled: bool = Field(default=False, description="It was stopped because of a cancel.")
    abandoned: bool = Field(
        default=False, description="It is given up, and its code still runs: count its slots as `occupied`."
    )
    returned: bool = Field(default=False, description="It is handed back unbegun, and goes to another agent.")
    duration: Seconds | None = Field(None, description="Seconds that it ran.")

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        said = {
            "output": self.output is not None,
            "error": self.error is not None,
            "cancelled": self.cancelled,
            "returned": self.returned,
        }
        if sum(said.values()) > 1:
            raise ValueError(f"say one of {', '.join(name for name, there in said.items() if there)}")
        if self.abandoned and not self.cancelled:
            raise ValueError("abandoned: only what is cancelled can be")
        if self.error is None and (self.rejected or self.timed_out or self.retry_after is not None):
            raise ValueError("rejected, timed_out and retry_after: of an error only, say which")
        if self.rejected and self.timed_out:
            raise ValueError("rejected, timed_out: say one of the two")
        return self


class StoredReport(BaseModel):
    """The report is stored; the leader takes it if the attempt is current then."""

    model_config = ConfigDict(frozen=True)

    task_id: str = Field(description="The task's id.")
    attempt: int = Field(description="Number of the attempt.")
    stored: Literal["start", "progress", "result", "return"] = Field(description="What was said of it.")


class LeavingAgent(BaseModel):
    """What the agent is asked for; the request is stored."""

    model_config = ConfigDict(frozen=True)

    agent_id: str = Field(description="The agent's id.")
    requested: Literal["drain", "unregister"] = Field(description="`drain`: it finishes first. `unregister`: at once.")
