"""`callboard demo`: run the census, print its report, and leave everything as it was."""

import sys
import tempfile
from pathlib import Path

from rich.console import Console

from callboard.demo.census import AGENTS, VICTIM, Census, Stage, take
from callboard.demo.display import progress, show
from callboard.demo.findings import report_on
from callboard.signals import stop_on_signal


async def run(*, keep: bool = False, json: bool = False, redis_port: int = 0, limit: int | None = None) -> int:
    """Take the census; return 0 if it is complete though an agent was killed, else 1.

    `limit` bounds the number of files. With `keep` everything runs on until Ctrl-C. Cancelling it stops all processes.
    """
    screen = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="callboard-demo-") as folder:
        screen.print(f"starting a server, a dispatcher and {len(AGENTS)} agents, each a process of its own")
        async with Stage(Path(folder), redis_port) as stage:
            with progress(screen) as update:
                census = await take(stage, update, limit)
            code = _tell(census, as_json=json)
            if keep:
                await _keep(stage, screen)
    return code


def _tell(census: Census, *, as_json: bool) -> int:
    report = report_on(census)
    if as_json:
        sys.stdout.write(report.model_dump_json(indent=2) + "\n")
    else:
        show(report, Console())
    return 0 if report.complete and report.handover is not None else 1


async def _keep(stage: Stage, screen: Console) -> None:
    """Leave everything running until Ctrl-C or SIGTERM."""
    agents = sorted(await stage.bus.agents(), key=lambda agent: agent.agent_id)
    metrics = [(agent.agent_id, str(agent.metadata.get("metrics"))) for agent in agents]
    for line in (
        "Everything but the dead agent goes on until Ctrl-C:",
        f"  server      {stage.url} ({stage.server})",
        f"  dispatcher  {stage.dispatcher_metrics}",
        f"  api         {await stage.serve_api()}",
        *(f"  {name:<11} {url}" for name, url in metrics if name != VICTIM),
        "In a second terminal:",
        f"  export CALLBOARD_REDIS_URL={stage.url}",
        "  callboard agents list",
        "  callboard tasks list",
        """  callboard submit text.stats '{"path": "ast.py"}' --wait""",
    ):
        screen.print(line, highlight=False, markup=False, soft_wrap=True)
    with stop_on_signal() as stop:
        await stop.wait()
