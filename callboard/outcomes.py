"""How the ends of tasks are shown: one of which the output matters, or many as they come."""

from typing import Any

from bus.errors import TaskCancelledError, TaskOutcomeError
from bus.handle import TaskHandle
from bus.states import TaskStatus
from callboard.failures import FAILED, one_line
from callboard.output import json_text, print_json, print_line, say


async def show_outcome(handle: TaskHandle[Any], *, timeout: float | None, as_json: bool) -> int:
    """Wait for one task and print its output; return the command's exit code.

    In JSON the task is told with its status, and with its error if it failed. A task that failed, was cancelled or has
    not ended in time is also said in one line on stderr, by the error that is raised.
    """
    try:
        output = await handle.result(timeout=timeout)
    except TaskOutcomeError as error:
        if as_json and error.reason is not None:
            print_json(outcome_of(error))
        raise
    print_json({"id": handle.id, "status": TaskStatus.COMPLETED, "output": output} if as_json else output)
    return 0


async def show_ended(handle: TaskHandle[Any], *, as_json: bool) -> int:
    """Print a task that has ended, as one line of many; return the command's exit code so far."""
    try:
        output = await handle.result()
    except TaskOutcomeError as error:
        if as_json:
            print_json(outcome_of(error), lines=True)
        else:
            say(f"callboard: {one_line(str(error))}")
        return FAILED
    if as_json:
        print_json({"id": handle.id, "status": TaskStatus.COMPLETED, "output": output}, lines=True)
    else:
        print_line(f"{handle.id} {json_text(output)}")
    return 0


def outcome_of(error: TaskOutcomeError) -> dict[str, Any]:
    """Return a task's end without a result, for JSON."""
    status = TaskStatus.CANCELLED if isinstance(error, TaskCancelledError) else TaskStatus.FAILED
    return {"id": error.task_id, "status": status, "reason": error.reason, "error": error.error}
