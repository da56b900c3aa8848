"""Draw the state machines of `bus.states` as Mermaid: ``python docs/state_diagrams.py > docs/states.md``.

The page is generated, and a test compares it with the tables, so that the picture cannot differ from what runs.
"""

from collections.abc import Mapping
from typing import TypeVar

from bus.states import AGENT_TRANSITIONS, TASK_REVIVALS, TASK_TRANSITIONS, AgentStatus, TaskStatus

S = TypeVar("S", TaskStatus, AgentStatus)

PAGE = """# States

Drawn from the tables in `bus/states.py` by `docs/state_diagrams.py`; do not edit.

## Tasks

{tasks}

`[*] --> ASSIGNED` is a task that was placed in the commit that accepted it, `ASSIGNED --> COMPLETED` one that started
and finished within one report of its agent. A terminal state never changes, but for one move that nothing makes by
itself: `FAILED --> PENDING` is an operator's [requeue](dead-letters.md) of a dead letter.

## Agents

{agents}

An agent that is `DRAINING` or `STOPPED` comes back as `IDLE` with a new session; one that is `DRAINING` also when it
is resumed before its process has ended. A pause is no status but stands beside it: whatever the status, a paused agent
gets nothing new.
"""


def diagram(table: Mapping[S | None, frozenset[S]], revivals: Mapping[S, S]) -> str:
    """Return the Mermaid state diagram of a transition table, and of the moves that only operators make."""
    lines: list[str] = ["```mermaid", "stateDiagram-v2"]
    for before, after in table.items():
        lines += [f"    {before.value if before else '[*]'} --> {state.value}" for state in sorted(after)]
        if before is not None and not after:
            lines.append(f"    {before.value} --> [*]")
    lines += [f"    {before.value} --> {after.value}: requeue" for before, after in revivals.items()]
    return "\n".join([*lines, "```"])


def page() -> str:
    """Return the whole page."""
    return PAGE.format(tasks=diagram(TASK_TRANSITIONS, TASK_REVIVALS), agents=diagram(AGENT_TRANSITIONS, {}))


if __name__ == "__main__":
    print(page(), end="")  # noqa: T201 - its purpose
