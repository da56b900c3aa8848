"""One process of an agent, as `callboard agent` starts it: the agent, its metrics, and a watchdog for a hang.

It stays small (under 50 MB at rest), so neither the command line's library nor FastStream may be imported here.
"""

import argparse
import faulthandler
import logging
import sys
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from prometheus_client.registry import CollectorRegistry
from pydantic import ValidationError

from agent_runtime.agent import Agent
from agent_runtime.exit_codes import ExitCode
from agent_runtime.loading import make_agent
from agent_runtime.process import run_process
from agent_runtime.settings import AgentSettings
from bus.errors import CallboardError
from callboard.failures import tell
from callboard.logs import set_up
from metrics.exposition import MetricsServer, PortTakenError, new_registry
from metrics.runtime_metrics import RuntimeMetrics

LOG: Final = logging.getLogger("callboard.agent")

_CRASHED: Final = 1
_LAG_LIMIT_S: Final = 5.0
"""An event loop that is blocked for so long is a problem that /healthz reports."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the agent; return its exit code (`agent_runtime.exit_codes`)."""
    options = _parse(arguments)
    set_up(options.log_level, as_json=options.log_json)
    try:
        agent = make_agent(options.target)
        return _serve(agent, _settings(agent, options), options)
    except (CallboardError, ValidationError) as error:
        tell(error)
        return ExitCode.MISCONFIGURED
    except Exception:
        LOG.exception("the agent has crashed")
        return _CRASHED


def _serve(agent: Agent, settings: AgentSettings, options: argparse.Namespace) -> int:
    registry = new_registry()
    watch = _Watch(settings.agent_id or "", settings.pool, registry, hang=options.hang)
    server = _metrics(registry, watch, options.metrics_host, options.metrics_port)
    metadata = {**dict(options.metadata), "metrics": server.url}
    LOG.info("agent %s starts in pool %s; metrics at %s", settings.agent_id, settings.pool, server.url)
    try:
        return run_process(agent, settings, watch, metadata=metadata)
    finally:
        faulthandler.cancel_dump_traceback_later()
        server.stop()


def _settings(agent: Agent, options: argparse.Namespace) -> AgentSettings:
    agent_id = options.id or agent.agent_id or f"{type(agent).__name__.lower()}-{options.made_up}"
    return AgentSettings(
        pool=options.pool,
        agent_id=agent_id if options.number is None else f"{agent_id}-{options.number}",
        slots=options.slots,
        heartbeat_interval=timedelta(seconds=options.heartbeat_interval),
        lease=timedelta(seconds=options.lease),
        grace=timedelta(seconds=options.grace),
    )


def _metrics(registry: CollectorRegistry, watch: "_Watch", host: str, port: int) -> MetricsServer:
    """Serve on `port`, or elsewhere: a restarted agent must not fail because somebody took its port meanwhile."""
    try:
        return MetricsServer(registry, host=host, port=port, healthy=watch.problems)
    except PortTakenError as error:
        LOG.warning("%s; taking a free one", error)
        return MetricsServer(registry, host=host, port=0, healthy=watch.problems)


class _Watch(RuntimeMetrics):
    """The metrics, what /healthz makes of them, and a watchdog that ends a process which hangs.

    The watchdog is the interpreter's own: a thread that needs no lock of Python's, so it fires, shows the stack of
    every thread and ends the process also when a C extension never gives Python back. Each measurement of the loop's
    lag winds it up again, for as long as the loop may yet be late.
    """

    def __init__(self, agent_id: str, pool: str, registry: CollectorRegistry, *, hang: float) -> None:
        super().__init__(agent_id, pool, registry)
        self._hang = hang
        self._signed_in = False
        self._beats_fail = False
        self._late = 0.0

    def heartbeat(self, ok: bool) -> None:  # noqa: FBT001 - as the protocol has it
        """Count a heartbeat; the first is written when the agent is signed in."""
        super().heartbeat(ok)
        self._signed_in = True
        self._beats_fail = not ok

    def loop_lag(self, seconds: float) -> None:
        """Show how late the event loop is, and wind the watchdog up."""
        super().loop_lag(seconds)
        self._late = seconds
        if self._hang and seconds < self._hang:
            faulthandler.dump_traceback_later(self._hang - seconds, exit=True)

    def problems(self) -> list[str]:
        """Return what is wrong. Called from the metrics' thread."""
        if not self._signed_in:
            return ["not signed in yet: the server or the dispatcher may be away"]
        found = []
        if self._beats_fail:
            found.append("the server does not take its heartbeats")
        if self._late > _LAG_LIMIT_S:
            found.append(f"the event loop is blocked for {self._late:.0f} s")
        return found


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="callboard.agent_process", description=__doc__)
    parser.add_argument("target")
    parser.add_argument("--pool", required=True)
    parser.add_argument("--id")
    parser.add_argument("--made-up", required=True, help="end of the id if none is given")
    parser.add_argument("--number", type=int, help="which of several processes")
    parser.add_argument("--slots", type=int)
    parser.add_argument("--metadata", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    parser.add_argument("--heartbeat-interval", type=float, required=True)
    parser.add_argument("--lease", type=float, required=True)
    parser.add_argument("--grace", type=float, required=True)
    parser.add_argument("--hang", type=float, required=True)
    parser.add_argument("--metrics-host", required=True)
    parser.add_argument("--metrics-port", type=int, required=True)
    parser.add_argument("--log-level", required=True)
    parser.add_argument("--log-json", action="store_true")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
