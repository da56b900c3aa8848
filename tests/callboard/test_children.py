"""A tree of tasks on the command line."""

from tests.callboard.commandline import CommandLine


def test_a_tree_is_shown(working: CommandLine) -> None:
    parent = working.submit("ask", '["a b", "c"]', "--trace", "00-1-2-01").out.strip()
    assert working("tasks", "result", parent, "--timeout", "20s").json == 3
    children = working("tasks", "list", "--parent", parent, "--json").json
    assert {(child["parent"], child["depth"], child["trace"]) for child in children} == {(parent, 1, "00-1-2-01")}
    assert len(children) == 2
    assert len(working("tasks", "list", "--parent", parent, "--limit", "1", "--json").json) == 1
    shown = working("tasks", "get", children[0]["id"]).out
    for part in (f"parent {parent}", "depth 1", "trace 00-1-2-01"):
        assert part in " ".join(shown.split())
    assert "children 2" in " ".join(working("tasks", "get", parent).out.split())


def test_children_are_listed_whatever_their_status(working: CommandLine) -> None:
    ran = working("tasks", "list", "--parent", f"{working.pool}.x", "--status", "pending")
    assert "leave out --status" in ran.complaint(2)
