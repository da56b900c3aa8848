"""`callboard acl`."""

import hashlib
import re

from tests.callboard.commandline import CommandLine


def test_each_role_and_each_agent_has_a_line(callboard: CommandLine) -> None:
    ran = callboard("acl", "--pool", "p1", "--agent", "crew-1", "--agent", "gpu-*")
    assert ran.code == 0
    names = [line.split()[1] for line in ran.out.splitlines()]
    roles = ("client", "reader", "api", "dispatcher")
    agents = ["callboard-agent-p1-crew-1", "callboard-agent-p1-gpu-"]
    assert names == [f"callboard-{role}-p1" for role in roles] + agents
    assert "callboard:{p1}:agent:gpu-*:assignments" in ran.out
    assert ">" not in ran.out
    assert "#" not in ran.out


def test_passwords_are_told_on_stderr_and_only_their_hashes_are_printed(callboard: CommandLine) -> None:
    ran = callboard("acl", "--role", "reader", "--passwords")
    match = re.fullmatch(r"redis://callboard-reader-default:(\S+)@HOST:PORT/0\n", ran.err)
    assert match
    assert f"#{hashlib.sha256(match[1].encode()).hexdigest()}" in ran.out
    assert match[1] not in ran.out


def test_what_is_no_agent_is_refused(callboard: CommandLine) -> None:
    assert "agent id" in callboard("acl", "--agent", "a b").complaint(2)
    assert "pool 'A'" in callboard("acl", "--pool", "A").complaint(2)
