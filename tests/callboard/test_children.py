"""A tree of tasks on the command line."""

from time import monotonic

from bus.connection import connect_blocking
from bus.ids import check_pool
from bus.messages import SubmitTask
from bus.names import DATA_FIELD, PoolNames
from bus.states import TaskPriority
from tests.callboard.commandline import CommandLine


def test_a_tree_is_shown_and_cancelled(working: CommandLine) -> None:
    parent = working.submit("slow", "3600", "--trace", "00-1-2-01").out.strip()
    until = monotonic() + 20
    while working.record(parent)["status"] != "RUNNING":
        assert monotonic() < until
    names = PoolNames(check_pool(working.pool))
    child = SubmitTask(id=f"{parent}-1", capability="nobody", parent=parent, depth=1, trace="00-1-2-01")
    with connect_blocking(working.url, name="test", timeout=5) as redis:
        redis.xadd(names.submissions(TaskPriority.MEDIUM), {DATA_FIELD: child.model_dump_json()})
    assert working.record(f"{parent}-1")["depth"] == 1
    (listed,) = working("tasks", "list", "--parent", parent, "--json").json
    assert (listed["id"], listed["parent"], listed["trace"]) == (f"{parent}-1", parent, "00-1-2-01")
    shown = " ".join(working("tasks", "get", f"{parent}-1").out.split())
    for part in (f"parent {parent}", "depth 1", "trace 00-1-2-01"):
        assert part in shown
    assert "children 1" in " ".join(working("tasks", "get", parent).out.split())
    assert working("tasks", "cancel", parent).code == 0
    assert f"its parent {parent} was cancelled" in working("tasks", "result", f"{parent}-1", "--timeout", "20s").err


def test_children_are_listed_whatever_their_status(working: CommandLine) -> None:
    ran = working("tasks", "list", "--parent", f"{working.pool}.x", "--status", "pending")
    assert "leave out --status" in ran.complaint(2)
