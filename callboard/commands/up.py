"""`callboard up`: a server, a dispatcher, the REST API and agents in one command."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

from cyclopts import Parameter
from cyclopts.validators import Number

from agent_runtime.settings import AgentSettings
from bus.client import Client
from bus.connection import DEFAULT_PORT, URL_VARIABLE
from bus.embedded import EmbeddedServer, ServerNotFoundError
from bus.ids import DEFAULT_POOL, check_pool, new_nonce
from callboard.commands.dispatcher import METRICS_PORT
from callboard.failures import INTERRUPTED, CommandError, UsageError, without_secrets
from callboard.labels import STARTED_BY
from callboard.options import LOG_DEFAULTS, PORT_RANGE, AsJson, LogOptions
from callboard.output import print_json, print_rows, say
from callboard.ports import free_port, is_free
from callboard.processes import Child, ProcessGroup
from callboard.signals import stop_on_signal
from dispatcher.api.settings import API_PORT, ApiSettings

T = TypeVar("T")

DATA_DIR: Final = Path(".callboard")
_READY_S: Final = 60.0
_FAREWELL_S: Final = 20.0
"""What an agent gets beyond the grace of its tasks."""
_POLL_S: Final = 0.05
_HERE: Final = "127.0.0.1"


async def up(
    *,
    agent: Annotated[
        list[str] | None,
        Parameter(metavar="TARGET", help="An agent: path/to/file.py or module:Class; may be repeated."),
    ] = None,
    processes: Annotated[int, Parameter(validator=Number(gte=1, lte=256), help="Processes of each agent.")] = 1,
    pool: Annotated[str, Parameter(help="Pool of the dispatcher and the agents.")] = DEFAULT_POOL,
    redis_port: Annotated[
        int, Parameter(validator=PORT_RANGE, help="Port of the server on 127.0.0.1; 0 is any free one.")
    ] = DEFAULT_PORT,
    api_port: Annotated[
        int | None,
        Parameter(validator=PORT_RANGE, help=f"Port of the REST API; else {API_PORT}, or if it is taken any free one."),
    ] = None,
    data_dir: Annotated[Path, Parameter(help="Where the server keeps its data, for the next time too.")] = DATA_DIR,
    json: AsJson = False,
    log: LogOptions = LOG_DEFAULTS,
) -> int:
    """Start a server, a dispatcher, the REST API and agents; Ctrl-C stops them all, agents first.

    Every process is one of its own, as in production. With CALLBOARD_REDIS_URL set, that server is used and none is
    started. The second Ctrl-C does not wait for tasks that still run. Should this command be killed, all it has
    started ends with it.
    """
    log.set_up()
    try:
        check_pool(pool)
    except ValueError as error:
        raise UsageError(str(error)) from None
    site = _Site(pool=pool, agents=agent or [], processes=processes, log=log, api_port=api_port)
    this = asyncio.current_task()
    with stop_on_signal(again=lambda: this is not None and this.cancel()) as stop:
        try:
            async with (
                _server(redis_port, data_dir.absolute()) as server,
                ProcessGroup(grace=AgentSettings().grace.total_seconds() + _FAREWELL_S) as group,
            ):
                if await _unless(stop, _start(site, server, group)):
                    _tell(site, server, as_json=json)
                    await _unless(stop, _watch(group))
                    say("stopping")
                for child in group.children[1:]:
                    child.terminate()
        except asyncio.CancelledError:
            if not stop.is_set():
                raise
            return INTERRUPTED
    return 0


@dataclass(frozen=True)
class _Server:
    url: str
    kind: str
    data_dir: Path | None
    """None: not ours."""


@dataclass
class _Site:
    """What is to be started, and where it is then."""

    pool: str
    agents: list[str]
    processes: int
    log: LogOptions
    api_port: int | None
    label: str = field(default_factory=new_nonce)
    dispatcher: str = ""
    """Where the dispatcher's metrics are."""
    api: str = ""
    """Where the REST API is."""
    signed_in: list[dict[str, Any]] = field(default_factory=list)


@contextlib.asynccontextmanager
async def _server(port: int, data_dir: Path) -> AsyncIterator[_Server]:
    url = os.environ.get(URL_VARIABLE)
    if url:
        yield _Server(url, f"the one of {URL_VARIABLE}", None)
        return
    try:
        async with EmbeddedServer(data_dir=data_dir, port=port) as server:
            yield _Server(server.url, server.kind, data_dir)
    except ServerNotFoundError as error:
        raise CommandError(f"{error}, or set {URL_VARIABLE} to a server that runs") from None


async def _start(site: _Site, server: _Server, group: ProcessGroup) -> bool:
    """Start everything and return when all of it works. Raises `CommandError` if something does not."""
    async with Client(server.url, pool=site.pool):  # says at once if the server of the environment is away
        pass
    port = _free_or_any(METRICS_PORT)
    site.dispatcher = f"http://{_HERE}:{port}/metrics"
    env = {URL_VARIABLE: server.url}
    program = [sys.executable, "-P", "-m", "callboard"]
    dispatcher = [*program, "dispatcher", "--pool", site.pool, "--metrics-port", str(port)]
    await group.start("the dispatcher", [*dispatcher, *site.log.arguments()], env=env)
    api_port = site.api_port or _free_or_any(ApiSettings().port)
    site.api = f"http://{_HERE}:{api_port}/api/v1"
    api = [*program, "api", "--host", _HERE, "--port", str(api_port), "--pool", site.pool]
    await group.start("the API", [*api, *site.log.arguments()], env=env)
    for target in site.agents:
        command = [*program, "agent", target, "--pool", site.pool, "--processes", str(site.processes)]
        command += ["--metadata", f"{STARTED_BY}={site.label}", *site.log.arguments()]
        await group.start(f"the agent {target}", command, env=env)
    await _alive(group, _ready(port, "/healthz"))
    await _alive(group, _ready(api_port, "/readyz"))
    await _alive(group, _agents_ready(site, server))
    return True


def _free_or_any(port: int) -> int:
    return port if port and is_free(_HERE, port) else free_port(_HERE)


async def _alive(group: ProcessGroup, ready: Coroutine[Any, Any, None]) -> None:
    """Await `ready`. Raises `CommandError` if a child ends before, or if it takes too long."""
    waiting = asyncio.create_task(ready)
    ending = asyncio.create_task(group.first_to_end())
    try:
        async with asyncio.timeout(_READY_S):
            await asyncio.wait((waiting, ending), return_when=asyncio.FIRST_COMPLETED)
    except TimeoutError:
        raise CommandError(f"not everything works after {_READY_S:.0f} s: see the lines above") from None
    finally:
        waiting.cancel()
        ending.cancel()
    if waiting.done() and not waiting.cancelled():
        waiting.result()
        return
    raise _ended(ending.result())


async def _watch(group: ProcessGroup) -> None:
    """Wait while all work. Raises `CommandError` for one that ends otherwise than it was told to, by a drain."""
    while True:
        child = await group.first_to_end()
        if child is group.children[0] or child.returncode != 0:
            raise _ended(child)
        say(f"{child.name} has ended as it was told to")
        group.children.remove(child)


def _ended(child: Child) -> CommandError:
    return CommandError(f"{child.name} has ended ({child.ending}): everything is stopped; see its own lines above")


async def _ready(port: int, path: str) -> None:
    while not await _is_healthy(port, path):  # noqa: ASYNC110 - it is another process that will be ready
        await asyncio.sleep(_POLL_S)


async def _is_healthy(port: int, path: str) -> bool:
    try:
        reader, writer = await asyncio.open_connection(_HERE, port)
    except OSError:
        return False
    with contextlib.closing(writer):
        writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        try:
            answer = await reader.readline()
        except OSError:
            return False
    return b" 200 " in answer


async def _agents_ready(site: _Site, server: _Server) -> None:
    wanted = len(site.agents) * site.processes
    async with Client(server.url, pool=site.pool) as bus:
        while True:
            found = [info for info in await bus.agents() if info.metadata.get(STARTED_BY) == site.label]
            if len(found) >= wanted:
                break
            await asyncio.sleep(_POLL_S)
    site.signed_in = [
        {
            "id": info.agent_id,
            "capabilities": [spec.name for spec in info.capabilities],
            "slots": info.slots,
            "pid": info.metadata.get("pid"),
            "metrics": info.metadata.get("metrics"),
        }
        for info in sorted(found, key=lambda info: info.agent_id)
    ]


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """Await `work`, and return None as soon as `stop` is set."""
    working = asyncio.create_task(work)
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        if not working.done():
            working.cancel()
            await asyncio.wait((working,))
    return None if working.cancelled() or stop.is_set() else working.result()


def _tell(site: _Site, server: _Server, *, as_json: bool) -> None:
    """Say where everything is."""
    url = without_secrets(server.url)
    data = None if server.data_dir is None else str(server.data_dir)
    if as_json:
        facts = {"redis_url": url, "server": server.kind, "data_dir": data, "pool": site.pool}
        print_json({**facts, "dispatcher": {"metrics": site.dispatcher}, "api": site.api, "agents": site.signed_in})
        return
    rows = [("server", f"{url} ({server.kind})"), ("data", data or "with that server")]
    rows += [("dispatcher", f"pool {site.pool}, {site.dispatcher}"), ("api", site.api)]
    rows += [(f"agent {one['id']}", f"{', '.join(one['capabilities'])}; {one['metrics']}") for one in site.signed_in]
    print_rows("Callboard is up", rows)
    say("Ctrl-C stops everything")
