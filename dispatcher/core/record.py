"""A live task as the ledger keeps it, and back: the `run` part of its record, and the task restored on taking over."""

from operator import attrgetter

from pydantic_core import to_json

from bus.messages import TaskHeader
from bus.records import AgentRecord, Guard, Run
from bus.states import TaskStatus
from dispatcher.core.config import SchedulerConfig
from dispatcher.core.decisions import Place
from dispatcher.core.model import AgentState, Requirement, TaskState
from dispatcher.core.order import score_of


def requirement_of(header: TaskHeader) -> Requirement:
    """Return what the submission asks of an agent."""
    return Requirement(header.capability, header.version, header.requires, header.prefers)


def task_of(config: SchedulerConfig, task_id: str, header: TaskHeader, enqueued_at: int) -> TaskState:
    """Make the live task of a submission that entered its stream at `enqueued_at`."""
    not_before = enqueued_at + int(header.delay * 1000) if header.delay else 0
    return TaskState(
        id=task_id,
        requirement=requirement_of(header),
        priority=header.priority,
        score=score_of(config, header.priority, enqueued_at),
        enqueued_at=enqueued_at,
        max_attempts=header.max_attempts,
        run_timeout_ms=None if header.run_timeout is None else int(header.run_timeout * 1000),
        expires_at=(
            None if header.queue_timeout is None else max(enqueued_at, not_before) + int(header.queue_timeout * 1000)
        ),
        not_before=not_before,
        fairness_key=header.fairness_key,
        estimate_ms=None if header.estimated_duration is None else header.estimated_duration * 1000,
        watchers=() if header.reply_to is None else (header.reply_to,),
    )


def encode_run(task: TaskState) -> bytes:
    """Return the JSON of `bus.records.Run` for `task`; what goes without saying (nothing, 0, empty) is left out."""
    fields = {name: value for name, value in zip(_RUN_FIELDS, _run_values(task), strict=True) if value}
    if task.progress is not None:
        fields["progress"] = task.progress
    return to_json(fields, exclude_none=True, inf_nan_mode="constants")


_RUN_FIELDS = (
    "enqueued_at",
    "not_before",
    "assigned_at",
    "started_at",
    "finished_at",
    "note",
    "reason",
    "error",
    "failures",
    "watchers",
    "attempts",
)
_run_values = attrgetter(*_RUN_FIELDS)


def restore(config: SchedulerConfig, task_id: str, guard: Guard, header: TaskHeader, run: Run) -> TaskState:
    """Make the live task that a record tells of; its agent is set by the caller."""
    task = task_of(config, task_id, header, run.enqueued_at)
    task.stored = str(guard)
    task.status, task.attempt, task.session = guard.status, guard.attempt, guard.session
    task.not_before = run.not_before or 0
    task.failures = run.failures
    task.assigned_at, task.started_at = run.assigned_at, run.started_at
    task.progress, task.note, task.error = run.progress, run.note, run.error
    task.watchers, task.attempts = run.watchers, run.attempts
    return task


def place_of(task: TaskState, now: int) -> tuple[Place, int]:
    """Return the index in which the task stands, and its score there."""
    match task.status:
        case TaskStatus.PENDING:
            return (Place.DELAYED, task.not_before) if task.not_before > now else (Place.WAITING, task.score)
        case TaskStatus.ASSIGNED | TaskStatus.RUNNING:
            return Place.ACTIVE, task.assigned_at or now
        case TaskStatus.FAILED:
            return Place.DEAD, task.finished_at or now
        case _:
            return Place.DONE, task.finished_at or now


def agent_record(agent: AgentState) -> AgentRecord:
    """Return what the ledger keeps of `agent`."""
    return AgentRecord.model_construct(
        agent_id=agent.id,
        session=agent.session,
        status=agent.status,
        health=agent.health,
        slots=agent.slots,
        capabilities=agent.capabilities,
        attributes=agent.attributes,
        accepts=agent.accepts,
        metadata=agent.metadata,
        heartbeat_interval=agent.heartbeat_interval,
        lease=agent.lease_ms / 1000,
        registered_at=agent.registered_at,
        retired=agent.retired,
        reason=agent.reason,
    )


def restore_agent(record: AgentRecord, now: int) -> AgentState:
    """Make the agent that a record tells of; its lease starts anew at `now`, for nobody listened to it until then."""
    return AgentState(
        id=record.agent_id,
        session=record.session,
        capabilities=record.capabilities,
        slots=record.slots,
        registered_at=record.registered_at,
        lease_ms=int(record.lease * 1000),
        attributes=dict(record.attributes),
        accepts=record.accepts,
        metadata=dict(record.metadata),
        heartbeat_interval=record.heartbeat_interval,
        retired=record.retired,
        status=record.status,
        health=record.health,
        reason=record.reason,
        last_beat=now,
    )
