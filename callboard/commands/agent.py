"""`callboard agent`: supervises the processes of one agent."""

import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Annotated, Final

from cyclopts import Parameter
from cyclopts.validators import Number

from agent_runtime.settings import AgentSettings
from agent_runtime.supervisor import Supervisor
from bus.ids import new_nonce
from callboard.options import LOG_DEFAULTS, PORT_RANGE, Duration, LogOptions, RedisUrl, Seconds, given, name_and_value
from callboard.ports import free_port, is_free
from callboard.signals import stop_on_signal
from metrics.exposition import PortTakenError

LOG: Final = logging.getLogger("callboard.agent")

HANG_S: Final = 60.0
_FAREWELL_S: Final = 10.0
"""What a process gets beyond its tasks' grace to deliver its last reports."""


async def agent(  # noqa: PLR0913 - one per option
    target: Annotated[str, Parameter(help="The agent's class: module:Class, or path/to/file.py:Class.")],
    /,
    *,
    processes: Annotated[int, Parameter(validator=Number(gte=1, lte=256), help="How many processes.")] = 1,
    slots: Annotated[int | None, Parameter(help="Tasks at once in each; else what the class says.")] = None,
    pool: Annotated[str | None, Parameter(help="Pool to work in.")] = None,
    id: Annotated[str | None, Parameter(help="Id of the agent, unique in its pool; made up otherwise.")] = None,  # noqa: A002
    redis_url: RedisUrl = None,
    heartbeat_interval: Annotated[Duration | None, Parameter(help="How often it says that it lives.")] = None,
    lease: Annotated[Duration | None, Parameter(help="Silence after which its tasks go to others.")] = None,
    grace: Annotated[Duration | None, Parameter(help="How long running tasks may go on after a stop.")] = None,
    metadata: Annotated[list[str] | None, Parameter(help="name=value, shown with the agent; may be repeated.")] = None,
    hang: Annotated[Seconds, Parameter(help="Event loop blocked for so long: start anew; 0 is never.")] = HANG_S,
    metrics_host: Annotated[str, Parameter(help="Address of /metrics and /healthz.")] = "127.0.0.1",
    metrics_port: Annotated[
        int, Parameter(validator=PORT_RANGE, help="Port of the first process, then upwards; 0 is any free one.")
    ] = 0,
    log: LogOptions = LOG_DEFAULTS,
) -> int:
    """Run an agent, and start it anew when it crashes, hangs, or is told to restart.

    An agent's id outlives the crash of its process. The first SIGTERM or Ctrl-C drains: tasks may finish within their
    grace. The second stops at once.
    """
    log.set_up()
    settings = AgentSettings(
        **given(
            redis_url=redis_url,
            pool=pool,
            agent_id=id,
            slots=slots,
            heartbeat_interval=heartbeat_interval,
            lease=lease,
            grace=grace,
        )
    )
    options = [part for item in metadata or () for part in ("--metadata", *name_and_value(item))]
    options += [f"--hang={hang}", f"--metrics-host={metrics_host}", *log.arguments()]
    command = _command(target, settings, ports=_ports(metrics_host, metrics_port, processes), options=options)
    supervisor = Supervisor(
        command,
        processes=processes,
        grace=settings.grace.total_seconds() + _FAREWELL_S,
        # The password of the server is nobody's business who lists processes.
        env=os.environ | {"CALLBOARD_REDIS_URL": settings.redis_url},
    )
    with stop_on_signal(again=lambda: _pass_on(supervisor)) as stop:
        return await supervisor.run(stop)


def _ports(host: str, first: int, processes: int) -> list[int]:
    """Return the port of each process' metrics, which it keeps when it is started anew. Raises `PortTakenError`."""
    if not first:
        return [free_port(host) for _ in range(processes)]
    ports = list(range(first, first + processes))
    for port in ports:
        if not is_free(host, port):
            raise PortTakenError(host, port)
    return ports


def _command(
    target: str, settings: AgentSettings, *, ports: Sequence[int], options: Sequence[str]
) -> Callable[[int], list[str]]:
    """Return what starts a process by its number, from 1."""
    made_up = new_nonce()[-12:]
    own = [f"--pool={settings.pool}"]
    own += [] if settings.agent_id is None else [f"--id={settings.agent_id}"]
    own += [] if settings.slots is None else [f"--slots={settings.slots}"]
    own += [
        f"--{name}={getattr(settings, name.replace('-', '_')).total_seconds()}"
        for name in ("heartbeat-interval", "lease", "grace")
    ]

    def command(which: int) -> list[str]:
        start = [sys.executable, "-P", "-m", "callboard.agent_process", target, f"--made-up={made_up}"]
        number = [f"--number={which}"] if len(ports) > 1 else []
        return [*start, *number, *own, f"--metrics-port={ports[which - 1]}", *options]

    return command


def _pass_on(supervisor: Supervisor) -> None:
    for pid in supervisor.pids.values():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
