"""So many agents in one process, for benchmarks: `python -m benchmarks.crowd 200` runs until it is told to stop.

A hundred slots in all, or one each if there are more agents than that.
"""

import asyncio
import sys

from agent_runtime.settings import AgentSettings
from agent_runtime.worker import Worker
from benchmarks.agents import Noop
from bus.long_process import new_loop, settle
from callboard.signals import stop_on_signal

SLOTS = 100


async def crowd(agents: int) -> None:
    """Run agents until SIGTERM."""
    slots = max(1, SLOTS // agents)
    workers = [Worker(Noop(), AgentSettings(agent_id=f"crowd-{n}", slots=slots)) for n in range(agents)]
    with stop_on_signal() as stop:
        async with asyncio.TaskGroup() as group:
            for worker in workers:
                group.create_task(worker.run(stop))
            for worker in workers:
                await worker.ready.wait()
            settle()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(crowd(int(sys.argv[1])))
