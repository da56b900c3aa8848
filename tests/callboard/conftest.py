"""A dispatcher and an agent as processes, for all tests of the command line, and the command line itself."""

import re
import signal
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.callboard.commandline import CREW, CommandLine
from tests.support.nursery import Program
from tests.support.server import RunningServer

CREW_POOL = "tcrew"

Start = Callable[..., "Running"]


class Running:
    """A command that runs on; its stderr is read as it comes."""

    def __init__(self, process: Program) -> None:
        self.process = process
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def wait_for(self, pattern: str, timeout: float = 60.0) -> re.Match[str]:
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

    def close(self, number: int = signal.SIGKILL) -> None:
        """End it, and close its pipes."""
        self.process.send_signal(number)
        self.process.wait(25)
        self._reader.join()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()

    def _find(self, pattern: str) -> re.Match[str] | None:
        return next((match for line in self.lines if (match := re.search(pattern, line))), None)

    def _read(self) -> None:
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
    started: list[Running] = []

    def begin(*arguments: str, **options: object) -> Running:
        started.append(Running(callboard.start(*arguments, **options)))  # type: ignore[arg-type] # passed on
        return started[-1]

    yield begin
    for running in started:
        running.close()


@pytest.fixture(scope="session")
def working(redis_server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandLine]:
    """Provide the command line for a pool with a dispatcher and a `Crew`, both processes."""
    commands = CommandLine(redis_server.url, CREW_POOL, tmp_path_factory.mktemp("crew"))
    options = ("--metrics-port", "0", "--retry-base", "10ms")
    dispatcher = Running(commands.start("dispatcher", "--pool", CREW_POOL, *options))
    agent = Running(commands.start("agent", CREW, "--pool", CREW_POOL, "--id", "crew"))
    try:
        agent.wait_for("crew is signed in")
        yield commands
    finally:
        for running in (agent, dispatcher):
            running.close(signal.SIGTERM)


def fetch(url: str) -> tuple[int, str]:
    """Return status and body of a page."""
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310 - ours
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
