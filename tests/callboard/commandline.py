"""The command line as a user has it: a process, its exit code, and what it printed.

It is a child of the nursery, for most of a second goes into starting Python; `anew` is for what is about just that.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from callboard.cli import main
from tests.support.nursery import Program

ROOT = Path(__file__).parents[2]
PROGRAM = (sys.executable, "-P", "-m", "callboard")
CREW = str(Path(__file__).with_name("crew.py")) + ":Crew"


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document on stdout; nothing may be on stderr."""
        assert self.err == ""
        return json.loads(self.out)

    @property
    def ndjson(self) -> list[Any]:
        """The documents on stdout, one a line."""
        return [json.loads(line) for line in self.out.splitlines()]

    def complaint(self, code: int) -> str:
        """Return the one line on stderr, which is all there may be of an error."""
        assert "Traceback" not in self.err
        (line,) = self.err.splitlines()
        assert line.startswith("callboard: ")
        assert self.code == code, line
        return line.removeprefix("callboard: ")


def environment(**more: str) -> dict[str, str]:
    """Return this process' environment without settings of Callboard's, and with `more`."""
    return {name: value for name, value in os.environ.items() if not name.startswith("CALLBOARD_")} | more


@dataclass(frozen=True)
class CommandLine:
    """Runs commands against one server and pool."""

    url: str
    pool: str
    cwd: Path

    def __call__(
        self, *arguments: str, stdin: str | None = None, env: Mapping[str, str] | None = None, timeout: float = 40.0
    ) -> Ran:
        """Run one command to its end."""
        with tempfile.TemporaryFile("w+") as words:
            words.write(stdin or "")
            words.seek(0)
            running = self.start(*arguments, env=env, stdin=words.fileno())
        with running:
            out, err = running.communicate(timeout)
            return Ran(running.wait(), out, err)

    def anew(self, *arguments: str, timeout: float = 40.0) -> Ran:
        """Run one command to its end in a Python that is started for it, as a shell does."""
        ended = subprocess.run(
            [*PROGRAM, *arguments],
            env=environment(CALLBOARD_REDIS_URL=self.url),
            cwd=self.cwd,
            capture_output=True,
            check=False,
            input="",
            text=True,
            timeout=timeout,
        )
        return Ran(ended.returncode, ended.stdout, ended.stderr)

    def submit(self, *arguments: str, stdin: str | None = None) -> Ran:
        """Submit to the pool."""
        return self("submit", *arguments, "--pool", self.pool, stdin=stdin)

    def record(self, task_id: str) -> Any:
        """Return what `tasks get` tells of a task, when the leader has accepted it."""
        until = monotonic() + 20
        while (ran := self("tasks", "get", task_id, "--json")).code:
            assert monotonic() < until, ran.err
        return ran.json

    def start(
        self, *arguments: str, env: Mapping[str, str] | None = None, stdin: int | None = subprocess.DEVNULL
    ) -> Program:
        """Start a command that runs on; its output is in pipes, and so is its input with None for `stdin`."""
        environ = environment(**{"CALLBOARD_REDIS_URL": self.url, **(env or {})})
        with Path(os.devnull).open() as nothing:
            file = nothing.fileno() if stdin == subprocess.DEVNULL else stdin
            return Program(main, arguments, env=environ, cwd=self.cwd, stdin=file)
