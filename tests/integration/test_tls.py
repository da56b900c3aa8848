"""Everything over TLS, with a certificate that the test makes; and a wrong one is refused."""

import asyncio
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

import pytest

from agent_runtime import Agent, capability
from agent_runtime.settings import AgentSettings
from agent_runtime.worker import Worker
from bus import BusUnavailableError, Client
from tests.callboard.commandline import CommandLine
from tests.support.bus import running_dispatcher

_START_S = 10.0


class Shouter(Agent):
    @capability("shout")
    async def shout(self, task: str) -> str:
        return task.upper()


@dataclass(frozen=True)
class Secured:
    """A server that speaks TLS only."""

    port: int
    ca: Path
    other_ca: Path

    def url(self, ca: Path | None, host: str = "localhost") -> str:
        """Return the server's URL, with whom to trust."""
        return f"rediss://{host}:{self.port}/0" + ("" if ca is None else f"?ssl_ca_certs={ca}")


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run([shutil.which("openssl") or "", *arguments], cwd=folder, check=True, capture_output=True)


def _authority(folder: Path, name: str) -> Path:
    subject = ("-subj", f"/CN={name}", "-days", "2", "-nodes", "-newkey", "rsa:2048")
    extensions = ("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    _openssl(folder, "req", "-x509", *subject, *extensions, "-keyout", f"{name}.key", "-out", f"{name}.pem")
    return folder / f"{name}.pem"


def _certificate(folder: Path) -> None:
    """Make the server's certificate, for `localhost` and nobody else."""
    _openssl(
        folder, "req", "-nodes", "-newkey", "rsa:2048", "-subj", "/CN=localhost", "-keyout", "s.key", "-out", "s.csr"
    )
    (folder / "s.ext").write_text("subjectAltName=DNS:localhost\n")
    signing = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "s.ext")
    _openssl(folder, "x509", "-req", "-in", "s.csr", *signing, "-out", "s.pem")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if shutil.which("openssl") is None or program is None:
        pytest.skip("no openssl, or no redis-server, on PATH: TLS is not tested")
    folder = tmp_path_factory.mktemp("tls")
    ca, other = _authority(folder, "ca"), _authority(folder, "other")
    _certificate(folder)
    port = _free_port()
    keys = ("--tls-cert-file", "s.pem", "--tls-key-file", "s.key", "--tls-ca-cert-file", "ca.pem")
    options = ("--port", "0", "--tls-port", str(port), "--tls-auth-clients", "no", "--save", "", "--bind", "127.0.0.1")
    with subprocess.Popen(
        [program, *options, *keys], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as server:
        try:
            if not _answers(server, port, ca):
                server.kill()
                pytest.skip(f"this server has no TLS: {(server.communicate()[0] or '').strip()[-200:]}")
            yield Secured(port, ca, other)
        finally:
            server.kill()
            server.communicate()


def _answers(server: "subprocess.Popen[str]", port: int, ca: Path) -> bool:
    context = ssl.create_default_context(cafile=str(ca))
    until = monotonic() + _START_S
    while monotonic() < until and server.poll() is None:
        with (
            suppress(OSError),
            socket.create_connection(("localhost", port), 1) as plain,
            context.wrap_socket(plain, server_hostname="localhost"),
        ):
            return True
        sleep(0.02)  # a process of somebody else's, that tells nobody when it is ready
    return False


async def test_a_client_a_dispatcher_an_agent_and_the_command_line_speak_tls(
    secured: Secured, pool: str, tmp_path: Path
) -> None:
    url = secured.url(secured.ca)
    worker, stop = Worker(Shouter(), AgentSettings(redis_url=url, pool=pool)), asyncio.Event()
    async with running_dispatcher(url, pool), Client(url, pool=pool) as bus:
        running = asyncio.create_task(worker.run(stop))
        async with asyncio.timeout(30):
            await worker.ready.wait()
        handle = await bus.submit("shout", "hello")
        assert await handle.result(timeout=30) == "HELLO"
        commands = CommandLine(url, pool, tmp_path)
        ran = await asyncio.to_thread(commands.submit, "shout", '"from a shell"', "--wait")
        assert (ran.code, ran.out) == (0, '"FROM A SHELL"\n')
        stop.set()
        await running


@pytest.mark.parametrize("trusted", ["nobody", "another authority", "another name"])
async def test_a_certificate_that_is_not_trusted_is_refused_and_said_so(
    secured: Secured, tmp_path: Path, trusted: str
) -> None:
    url = {
        "nobody": secured.url(None),
        "another authority": secured.url(secured.other_ca),
        "another name": secured.url(secured.ca, "127.0.0.1"),
    }[trusted]
    with pytest.raises(BusUnavailableError, match=r"certificate is not trusted .* by \?ssl_ca_certs=") as caught:
        async with Client(url):
            pass
    assert "callboard up" not in str(caught.value)
    ran = await asyncio.to_thread(CommandLine(url, "p", tmp_path).submit, "shout", '"x"')
    assert "certificate is not trusted" in ran.complaint(1)


async def test_plain_text_is_not_answered(secured: Secured) -> None:
    with pytest.raises(BusUnavailableError):
        async with Client(f"redis://localhost:{secured.port}/0"):
            pass
