"""The outcome of a task that has ended, as its submitter is told it."""

from pydantic_core import to_json

from bus.records import CancelOutcome
from bus.states import TaskStatus
from dispatcher.core.model import TaskState


def outcome_json(task: TaskState, agent_id: str | None) -> bytes:
    """Return the JSON of `bus.messages.Outcome`, with the output's bytes as the agent's report had them."""
    if task.status is TaskStatus.COMPLETED and agent_id is not None and task.output is not None and task.error is None:
        head = (
            f'{{"task_id":"{task.id}","status":"COMPLETED","attempt":{task.attempt},"agent_id":"{agent_id}","output":'
        )
        return head.encode() + task.output + b"}"
    return _any_outcome(task, agent_id)


def _any_outcome(task: TaskState, agent_id: str | None) -> bytes:
    head = {
        "task_id": task.id,
        "status": task.status.value,
        "attempt": task.attempt,
        "agent_id": agent_id,
        "error": task.error,
        "reason": task.reason,
    }
    if task.cancellation is not None and task.status is TaskStatus.CANCELLED:
        head["by"] = task.cancellation.by or None
        head["given_up"] = task.cancellation.outcome is CancelOutcome.GIVEN_UP
    text = to_json(head, exclude_none=True, inf_nan_mode="constants")
    return text if task.output is None else text[:-1] + b',"output":' + task.output + b"}"
