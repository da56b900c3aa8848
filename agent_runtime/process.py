"""One agent as a whole process: event loop, signals, garbage collector, exit code."""

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Mapping
from typing import Final

from pydantic import JsonValue

from agent_runtime import out_of_memory
from agent_runtime.agent import Agent
from agent_runtime.exit_codes import ExitCode
from agent_runtime.observer import RuntimeObserver
from agent_runtime.settings import AgentSettings
from agent_runtime.worker import TASK_THREADS, Worker
from bus.long_process import new_loop, settle

__all__ = ["ExitCode", "run_process"]

LOG: Final = logging.getLogger("callboard.agent")
_IDLE_THREAD_S: Final = 0.05


def run_process(
    agent: Agent,
    settings: AgentSettings,
    observer: RuntimeObserver | None = None,
    *,
    metadata: Mapping[str, JsonValue] | None = None,
) -> int:
    """Run `agent` until it is told to stop; return the process' exit code.

    The first SIGTERM or SIGINT drains: tasks may finish within `settings.grace`. The second stops at once. Does not
    return if the thread of a task is still at work then: the process ends with that exit code under it, since nothing
    can stop the thread and the interpreter would wait for it.
    """
    with asyncio.Runner(loop_factory=new_loop) as runner:
        code = runner.run(_main(agent, settings, observer, metadata))
    stuck = _threads_at_work()
    if stuck:
        LOG.warning("ending although %d threads of tasks still run", stuck)
        logging.shutdown()
        sys.stdout.flush()
        os._exit(code)
    return int(code)


def _threads_at_work() -> int:
    """Count the threads of tasks that do not end by themselves at once, as idle ones do."""
    threads = [thread for thread in threading.enumerate() if thread.name.startswith(TASK_THREADS)]
    for thread in threads:
        thread.join(_IDLE_THREAD_S)
    return sum(thread.is_alive() for thread in threads)


async def _main(
    agent: Agent,
    settings: AgentSettings,
    observer: RuntimeObserver | None,
    metadata: Mapping[str, JsonValue] | None,
) -> ExitCode:
    worker = Worker(agent, settings, observer, metadata=metadata)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    out_of_memory.end_on(loop)
    running = asyncio.create_task(worker.run(stop), name="worker")
    settling = asyncio.create_task(_settle(worker), name="settle")

    def signalled() -> None:
        if stop.is_set():
            running.cancel()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled)
    try:
        return await running
    except asyncio.CancelledError:
        if stop.is_set():
            return ExitCode.STOPPED
        raise
    finally:
        settling.cancel()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def _settle(worker: Worker) -> None:
    await worker.ready.wait()
    settle()
