"""Publish a task and wait for its result.

    callboard up --agent examples/agent.py
    python examples/submit.py "to be or not to be"

The same in a shell: `callboard submit text.count '{"text": "to be or not to be"}' --wait`.
"""

import asyncio
import sys

from bus import CallboardError, Client, TaskPriority


async def main(text: str) -> int:
    """Have the words of `text` counted; return the program's exit code."""
    try:
        async with Client() as bus:
            handle = await bus.submit("text.count", {"text": text}, priority=TaskPriority.HIGH, run_timeout=10)
            print(f"stored as {handle.id}")
            result = await handle.result(timeout=30)
            record = await handle.get()
    except CallboardError as error:  # no server, no agent in time, or the task failed: the text says which
        print(error, file=sys.stderr)
        return 1
    print(f"{result['words']} words, counted by {record.agent_id} in attempt {record.attempt}")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(" ".join(sys.argv[1:]))))
