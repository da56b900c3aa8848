"""A process whose event loop had no memory ends; one of which only a task had none goes on."""

import subprocess
import sys
from pathlib import Path

import pytest

from agent_runtime.out_of_memory import EXIT_CODE

ROOT = Path(__file__).parents[2]
PROGRAM = """
import asyncio, gc
from agent_runtime.out_of_memory import end_on
from bus.long_process import new_loop

def raises(error=MemoryError):
    raise error

class Falls:
    def __del__(self):
        raise MemoryError

async def fails():
    raise MemoryError

async def main():
    end_on(asyncio.get_running_loop())
    {deed}
    for _ in range(3):
        await asyncio.sleep(0)  # turns of the loop, in which the deed is done
    gc.collect()
    print("goes on")

asyncio.Runner(loop_factory=new_loop).run(main())
"""


@pytest.mark.parametrize(
    ("deed", "code"),
    [
        ("asyncio.get_running_loop().call_soon(raises)", EXIT_CODE),
        ("Falls()", EXIT_CODE),
        ("asyncio.create_task(fails()); await asyncio.sleep(0)", 0),
        ("asyncio.get_running_loop().call_soon(raises, ValueError)", 0),
    ],
)
def test_a_process_ends_when_its_event_loop_had_no_memory(deed: str, code: int) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(deed=deed)], capture_output=True, cwd=ROOT, check=False, timeout=60
    )
    assert ended.returncode == code, ended.stderr
    assert (b"goes on" in ended.stdout) is (code == 0)
    assert (b"had no memory" in ended.stderr) is (code != 0)
