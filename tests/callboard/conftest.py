"""A dispatcher and an agent as processes, for all tests of the command line, and the command line itself."""

import re
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.callboard.commandline import CREW, CommandLine
from tests.support.server import RunningServer

CREW_POOL = "tcrew"

Start = Callable[..., "Running"]


class Running:
    """A command that runs on; its stderr is read as it comes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._ended = False
        threading.Thread(target=self._read, daemon=True).start()

    def wait_for(self, pattern: str, timeout: float = 20.0) -> re.Match[str]:
        """Return the match of the first line of stderr, also of one to come, in which `pattern` is found."""
        with self._news:
            found = self._news.wait_for(lambda: self._find(pattern) or self._ended, timeout)
            match = self._find(pattern)
        assert match, f"{pattern!r} is not in {self.lines}, ended: {found}"
        return match

    def end(self, number: int, timeout: float = 25.0) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout)

    def _find(self, pattern: str) -> re.Match[str] | None:
        return next((match for line in self.lines if (match := re.search(pattern, line))), None)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._news:
                self.lines.append(line.rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()


@pytest.fixture
def callboard(redis_url: str, pool: str, tmp_path: Path) -> CommandLine:
    """Provide the command line for a pool in which nobody works."""
    return CommandLine(redis_url, pool, tmp_path)


@pytest.fixture
def start(callboard: CommandLine) -> Iterator[Start]:
    """Provide a function that starts a command which runs on, and is killed in the end."""
    started: list[subprocess.Popen[str]] = []

    def begin(*arguments: str, **options: object) -> Running:
        process = callboard.start(*arguments, **options)  # type: ignore[arg-type] # passed on
        started.append(process)
        return Running(process)

    yield begin
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def working(redis_server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandLine]:
    """Provide the command line for a pool with a dispatcher and a `Crew`, both processes."""
    commands = CommandLine(redis_server.url, CREW_POOL, tmp_path_factory.mktemp("crew"))
    dispatcher = commands.start("dispatcher", "--pool", CREW_POOL, "--metrics-port", "0", "--retry-base", "10ms")
    agent = commands.start("agent", CREW, "--pool", CREW_POOL, "--id", "crew")
    try:
        Running(agent).wait_for("crew is signed in")
        Running(dispatcher)
        yield commands
    finally:
        for process in (agent, dispatcher):
            process.terminate()
            process.wait(25)


def fetch(url: str) -> tuple[int, str]:
    """Return status and body of a page."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - ours
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
