"""Start a child process that cannot outlive this one, even when this one is killed by SIGKILL.

A killed process runs no cleanup, so somebody else has to end the child:

- **the kernel** (Linux, started from the main thread): this file, executed as a script, asks for SIGKILL at
  its parent's death (`PR_SET_PDEATHSIG`) and then *becomes* the child by exec. No further process is left,
  and no Python code runs between fork and exec, where it could deadlock on another thread's lock.
- **a watchdog** (macOS, or another thread: the kernel's signal fires when the *thread* that forked ends, not
  the process): this file, executed as a script, reads a pipe whose other end only the parent holds. The
  kernel closes that end with the parent, however it dies, and the watchdog kills the child's process group.

SIGKILL and not SIGTERM, because a busy child may refuse to stop; a server loses nothing by it that it has
acknowledged (the reply is sent after the write).

The races: a parent that dies between fork and prctl is seen by comparing the parent's id afterwards. With a
watchdog, a parent killed in the microseconds between the two forks leaves the child behind.

Run as a script this must import the standard library only: it starts without site-packages.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_SCRIPT: Final = (sys.executable, "-I", "-S", str(Path(__file__).resolve()))


@dataclass(frozen=True, slots=True)
class TiedProcess:
    """A child in a session of its own: Ctrl-C in our terminal reaches us, and we stop the child in order."""

    process: subprocess.Popen[bytes]
    watchdog: subprocess.Popen[bytes] | None

    def end(self) -> None:
        """Kill what still runs and reap it. Idempotent; blocks until the kernel has ended the processes."""
        for process in (self.watchdog, self.process):
            if process is not None:
                process.kill()
                process.wait()
                if process.stdin is not None:
                    process.stdin.close()


def spawn_tied(
    command: Sequence[str], *, log: Path | None, env: Mapping[str, str], pass_fds: Sequence[int] = ()
) -> TiedProcess:
    """Start `command` so that it dies with this process; its output is appended to `log`, or is ours without one.

    `command[0]` is an absolute path. The process id is the command's own from the start. Raises OSError when
    nothing can be started.
    """
    by_kernel = sys.platform == "linux" and threading.current_thread() is threading.main_thread()
    prefix = (*_SCRIPT, "become", str(os.getpid())) if by_kernel else ()
    with log.open("ab") if log is not None else nullcontext() as output:
        process = subprocess.Popen(  # noqa: S603 - the command is our caller's, no shell takes part
            [*prefix, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=env,
            pass_fds=pass_fds,
            start_new_session=True,
        )
    if by_kernel:
        return TiedProcess(process, None)
    try:
        watchdog = subprocess.Popen(  # noqa: S603 - this very file
            [*_SCRIPT, "watch", str(process.pid)], stdin=subprocess.PIPE, start_new_session=True
        )
    except BaseException:
        TiedProcess(process, None).end()
        raise
    return TiedProcess(process, watchdog)


def _become(parent: int, command: list[str]) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == parent:
        os.execv(command[0], command)  # noqa: S606 - a shell would be one process too many


def _watch(child: int) -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)


if __name__ == "__main__":
    if sys.argv[1] == "become":
        _become(int(sys.argv[2]), sys.argv[3:])
    else:
        _watch(int(sys.argv[2]))
