"""The body of an entry in `events`: the JSON of `bus.messages.EventBatch`, made of what a commit tells.

Most transitions have nothing in them that JSON would have to escape: ids, capabilities and statuses are of few
characters, see `bus.ids`. They are written as text, in half of the time; whatever was said in words goes through JSON.
"""

from collections.abc import Sequence

from pydantic_core import to_json

from bus.messages import VERSION
from dispatcher.core.decisions import AgentTransition, TaskTransition


def event_body(now: int, epoch: int, tasks: Sequence[TaskTransition], agents: Sequence[AgentTransition]) -> bytes:
    """Return the body of one entry; `b""` if there is nothing to tell."""
    if not tasks and not agents:
        return b""
    told = ",".join([_transition(one) for one in tasks])
    others = to_json(agents, exclude_none=True).decode() if agents else "[]"
    return f'{{"v":{VERSION},"at":{now},"epoch":{epoch},"tasks":[{told}],"agents":{others}}}'.encode()


def _transition(one: TaskTransition) -> str:
    if one.reason is None and one.note is None and one.progress is None and one.chunk is None and one.capability:
        agent = "" if one.agent_id is None else f',"agent_id":"{one.agent_id}"'
        return (
            f'{{"task_id":"{one.task_id}","status":"{one.status}","attempt":{one.attempt}{agent},'
            f'"capability":"{one.capability}"}}'
        )
    return to_json(one, exclude_none=True).decode()
