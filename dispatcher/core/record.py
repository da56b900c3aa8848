"""A live task as the ledger keeps it, and back: the `run` part of its record, and the task restored on taking over."""

from collections.abc import Mapping
from functools import lru_cache
from operator import attrgetter
from typing import NamedTuple

from pydantic_core import to_json

from bus.messages import TaskHeader
from bus.records import AgentRecord, Guard, Run
from bus.states import TaskStatus
from dispatcher.core import predecessors
from dispatcher.core.decisions import Place
from dispatcher.core.model import AgentState, Attempt, TaskState
from dispatcher.core.terms import MILLI, Terms


def encode_run(task: TaskState) -> bytes:
    """Return the JSON of `bus.records.Run` for `task`; what goes without saying (nothing, 0, empty) is left out."""
    return _encode_any(task) if _unusual(task) else _encode_usual(task)


def _encode_usual(task: TaskState) -> bytes:
    """Do it for most tasks, which have nothing to tell but instants and one attempt: as text, which is faster."""
    current, finished, why = task.current, "", ""
    if task.finished_at:
        finished = f',"finished_at":{task.finished_at}'
    if current is None:
        return f'{{"enqueued_at":{task.enqueued_at}{finished}}}'.encode()
    assigned = f'"assigned_at":{current.assigned_at}'
    started = f',"started_at":{current.started_at}' if current.started_at else ""
    if current.why:
        why = f',"why":[{",".join(map(str, current.why))}]'
    past = ""
    if task.attempts:
        (one,) = task.attempts
        began = f',"started_at":{one.started_at}' if one.started_at is not None else ""
        past = (
            f',"attempts":[{{"attempt":{one.attempt},"agent_id":"{one.agent_id}","assigned_at":{one.assigned_at},'
            f'"ended_at":{one.ended_at},"outcome":"{one.outcome}"{began}}}]'
        )
    return f'{{"enqueued_at":{task.enqueued_at}{finished}{past},{assigned}{started}{why}}}'.encode()


def _unusual(task: TaskState) -> bool:
    """Tell whether there is more to tell of `task` than `_encode_usual` knows of."""
    current, attempts = task.current, task.attempts
    if (
        task.priority
        or task.not_before
        or task.failures
        or task.reason
        or task.error
        or task.watchers
        or task.cancellation
        or task.requeues
        or task.kin
        or not task.enqueued_at
    ):
        return True
    if attempts and (len(attempts) > 1 or attempts[0].error or attempts[0].outcome != "completed" or current is None):
        return True
    return current is not None and bool(
        current.extended_ms
        or current.waiting
        or current.note
        or current.progress is not None
        or not current.assigned_at
    )


def _encode_any(task: TaskState) -> bytes:
    fields = {name: value for name, value in zip(_TASK_FIELDS, _task_values(task), strict=True) if value}
    if task.kin is not None and task.kin.children:
        fields["children"] = task.kin.children
    current = task.current
    if current is not None:
        fields |= {name: value for name, value in zip(_ATTEMPT_FIELDS, _attempt_values(current), strict=True) if value}
        if current.progress is not None:
            fields["progress"] = current.progress
    return to_json(fields, exclude_none=True, inf_nan_mode="constants")


_TASK_FIELDS = (
    "enqueued_at",
    "priority",
    "not_before",
    "finished_at",
    "reason",
    "error",
    "failures",
    "watchers",
    "attempts",
    "cancellation",
    "requeues",
)
_task_values = attrgetter(*_TASK_FIELDS)
_ATTEMPT_FIELDS = ("assigned_at", "started_at", "extended_ms", "waiting", "note", "why")
_attempt_values = attrgetter(*_ATTEMPT_FIELDS)


class StoredTask(NamedTuple):
    """The record of a live task, read."""

    task_id: str
    guard: Guard
    header: TaskHeader
    run: Run


def restore(stored: StoredTask, terms: Terms, agent: AgentState | None) -> TaskState:
    """Make the live task that a record tells of; `agent` is who has it by its guard."""
    guard, run = stored.guard, stored.run
    task = TaskState(
        id=stored.task_id,
        terms=terms,
        enqueued_at=run.enqueued_at,
        priority=run.priority,
        not_before=run.not_before or 0,
        status=guard.status,
        attempt=guard.attempt,
        failures=run.failures,
        watchers=run.watchers,
        attempts=run.attempts,
        cancellation=run.cancellation,
        requeues=run.requeues,
        error=run.error,
        stored=_text_of(guard),
    )
    if agent is not None:
        task.current = Attempt(agent, guard.session, run.assigned_at or 0, run.started_at)
        task.current.progress, task.current.note = run.progress, run.note
        task.current.extended_ms, task.current.waiting = run.extended_ms, run.waiting
        task.current.why = run.why
    return task


_text_of = lru_cache(maxsize=1024)(Guard.__str__)
"""The text of a guard: one for all tasks that nobody has and that are alike."""


def place_of(task: TaskState, now: int) -> tuple[Place, int]:
    """Return the index in which the task stands, and its score there."""
    match task.status:
        case TaskStatus.PENDING:
            return (Place.DELAYED, task.not_before) if task.not_before > now else (Place.WAITING, task.score)
        case TaskStatus.ASSIGNED | TaskStatus.RUNNING:
            return Place.ACTIVE, now if task.current is None else task.current.assigned_at
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
        resources={name: amount / MILLI for name, amount in agent.resources.items()},
        rate=agent.rate,
        capabilities=agent.capabilities,
        attributes=agent.attributes,
        accepts=agent.accepts,
        metadata=agent.metadata,
        heartbeat_interval=agent.heartbeat_interval,
        lease=agent.lease_ms / 1000,
        registered_at=agent.registered_at,
        retired=agent.retired,
        replaced=predecessors.stored(agent) if agent.predecessors else (),
        reason=agent.reason,
        pause=agent.pause,
        request=agent.request,
        update=agent.update,
        overrides=agent.overrides,
        wanted=agent.wanted,
        shut={name: breaker.until for name, breaker in agent.breakers.items() if breaker.until},  # else it is closed
    )


def restore_agent(record: AgentRecord, now: int) -> AgentState:
    """Make the agent that a record tells of; its lease starts anew at `now`, for nobody listened to it until then."""
    return AgentState(
        id=record.agent_id,
        session=record.session,
        capabilities=record.capabilities,
        slots=record.slots,
        resources=thousandths(record.resources),
        rate=record.rate,
        registered_at=record.registered_at,
        lease_ms=int(record.lease * 1000),
        attributes=dict(record.attributes),
        accepts=record.accepts,
        metadata=dict(record.metadata),
        heartbeat_interval=record.heartbeat_interval,
        retired=record.retired,
        predecessors=predecessors.restored(record.replaced, now),
        status=record.status,
        health=record.health,
        reason=record.reason,
        pause=record.pause,
        request=record.request,
        update=record.update,
        overrides=record.overrides,
        wanted=record.wanted,
        last_beat=now,
    )


def thousandths(resources: Mapping[str, float]) -> dict[str, int]:
    """Return amounts as they are counted here."""
    return {name: round(amount * MILLI) for name, amount in resources.items()}
