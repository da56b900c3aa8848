"""Children that are forked from a process which has imported all that they need, so that none costs a start of Python.

Each is a process like any other: with environment, directory, streams and exit code of its own. There is one nursery in
a run, and `multiprocessing` asks what it is to import before the first child: so all that is forked is forked here.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import DupFd
from pathlib import Path
from subprocess import TimeoutExpired
from types import TracebackType
from typing import IO, Any, Final, Self

_CONTEXT: Final = get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.support.grown_up"])


def child(target: Callable[..., object], *arguments: Any) -> BaseProcess:
    """Return a child that calls a function, not started yet."""
    return _CONTEXT.Process(target=target, args=arguments, daemon=True)


class Program:
    """A child that runs `main` as `python -m` would; it is used as a `subprocess.Popen` of text is.

    `stdin` is a file, or None for a pipe to write to.
    """

    def __init__(
        self, main: Callable[[], int], arguments: Sequence[str], *, env: Mapping[str, str], cwd: Path, stdin: int | None
    ) -> None:
        self.args = arguments
        self.stdin: IO[str] | None = None
        with ExitStack() as theirs:
            if stdin is None:
                stdin, mine = os.pipe()
                theirs.callback(os.close, stdin)
                self.stdin = os.fdopen(mine, "w")
            self.stdout, stdout = _pipe(theirs)
            self.stderr, stderr = _pipe(theirs)
            streams = [DupFd(one) for one in (stdin, stdout, stderr)]
            self._process = child(_be, main, list(arguments), dict(env), cwd, streams)
            self._process.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Its exit code, negative after a signal; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Return its exit code, as `returncode` does."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Return its exit code once it has ended; raise after so many seconds."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise TimeoutExpired(list(self.args), timeout or 0.0)
        return self._process.exitcode

    def communicate(self, timeout: float) -> tuple[str, str]:
        """Return what it writes to stdout and to stderr until its end; kill it after so many seconds, and raise."""
        with ThreadPoolExecutor(2) as readers:
            out, err = readers.submit(self.stdout.read), readers.submit(self.stderr.read)
            try:
                self.wait(timeout)
            finally:
                self.kill()
            return out.result(), err.result()

    def send_signal(self, number: int) -> None:
        """Send it a signal; nothing happens if it has ended."""
        if self._process.exitcode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it by SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                stream.close()
        self.wait()


def _pipe(theirs: ExitStack) -> tuple[IO[str], int]:
    """Return both ends of a pipe: what is written to the second, which `theirs` closes, is read from the first."""
    reading, writing = os.pipe()
    theirs.callback(os.close, writing)
    return os.fdopen(reading), writing


def _be(main: Callable[[], int], arguments: list[str], env: dict[str, str], cwd: Path, streams: list[Any]) -> None:
    """Become a process that was started anew."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    time.tzset()
    for number, stream in enumerate(streams):
        file = stream.detach()
        os.dup2(file, number)
        os.close(file)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - as Python does at its start
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False, errors="backslashreplace", buffering=1)  # noqa: SIM115
    sys.argv = [sys.argv[0], *arguments]
    sys.exit(main())
