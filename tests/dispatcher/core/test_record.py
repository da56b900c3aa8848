"""The record of a task: what most tasks have is written as text, and says what the general way says."""

from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import from_json

from bus.messages import TaskError
from bus.records import AttemptRecord, Cancellation, Run
from bus.states import TaskPriority, TaskStatus
from dispatcher.core import record
from dispatcher.core.kin import Kin
from dispatcher.core.model import Attempt, TaskState
from dispatcher.core.terms import Requirement, Terms

TERMS = Terms(Requirement("k", "c"), TaskPriority.MEDIUM, 0)
INSTANT = st.integers(1, 2_000_000_000_000)
ERROR = TaskError(type="E", message='"quoted"\n')

attempts = st.builds(
    AttemptRecord,
    attempt=st.integers(1, 9),
    agent_id=st.sampled_from(["a", "worker-3.eu@x"]),
    assigned_at=INSTANT,
    ended_at=INSTANT,
    outcome=st.sampled_from(["completed", "error", "returned"]),
    started_at=st.none() | INSTANT,
    error=st.none() | st.just(ERROR),
)
rare = st.fixed_dictionaries(
    {},
    optional={
        "priority": st.sampled_from(TaskPriority),
        "not_before": INSTANT,
        "failures": st.integers(1, 3),
        "reason": st.just('say "why"'),
        "error": st.just(ERROR),
        "watchers": st.just(("c1",)),
        "cancellation": st.just(Cancellation(5, "because")),
        "kin": st.just(Kin("p", 1, 2)),
    },
)


@st.composite
def tasks(draw: st.DrawFn) -> TaskState:
    """Make a task of which there is little to tell, or more."""
    task = TaskState("p.t", TERMS, draw(INSTANT), finished_at=draw(st.none() | INSTANT))
    task.attempts = tuple(draw(st.lists(attempts, max_size=2)))
    for name, value in draw(st.one_of(st.just({}), rare)).items():
        setattr(task, name, value)
    if draw(st.booleans()):
        task.status = TaskStatus.RUNNING
        task.current = Attempt(None, "s", draw(st.just(0) | INSTANT), draw(st.none() | INSTANT))
        task.current.why = tuple(draw(st.lists(st.integers(0, 99), max_size=4)))
        task.current.note = draw(st.none() | st.just('"'))
        task.current.progress = draw(st.none() | st.just(0.5))
        task.current.waiting = draw(st.booleans())
    return task


@given(task=tasks())
def test_the_short_way_to_write_a_record_says_what_the_general_one_does(task: TaskState) -> None:
    any_way = record._encode_any(task)
    written = record.encode_run(task)
    assert from_json(written) == from_json(any_way)
    assert Run.model_validate_json(written) == Run.model_validate_json(any_way)
