"""An entry of the events: what is written as text reads as what JSON would have made of it."""

from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import to_json

from bus.messages import EventBatch
from bus.states import AgentHealth, AgentStatus, TaskStatus
from dispatcher.core.decisions import AgentTransition, TaskTransition
from dispatcher.event_body import event_body

transitions = st.builds(
    TaskTransition,
    task_id=st.sampled_from(["p.1", "p.x_Y-z"]),
    status=st.sampled_from(TaskStatus),
    attempt=st.integers(0, 99),
    agent_id=st.none() | st.just("w-1.a@b"),
    reason=st.none() | st.just('he said "no"\n'),
    progress=st.none() | st.just(0.25),
    note=st.none() | st.just("ü"),
    capability=st.sampled_from([None, "", "text/translate"]),
    chunk=st.none() | st.just("\\"),
)


@given(tasks=st.lists(transitions, max_size=5), agents=st.integers(0, 2))
def test_a_body_says_what_is_to_be_told_whatever_that_is(tasks: list[TaskTransition], agents: int) -> None:
    others = [AgentTransition("w", AgentStatus.IDLE, AgentHealth.HEALTHY, None)] * agents
    body = event_body(7, 8, tasks, others)
    if not tasks and not agents:
        assert body == b""
        return
    whole = to_json({"v": 1, "at": 7, "epoch": 8, "tasks": tasks, "agents": others}, exclude_none=True)
    assert EventBatch.model_validate_json(body) == EventBatch.model_validate_json(whole)
