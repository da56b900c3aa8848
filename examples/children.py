"""A task that divides its work among tasks of its own, and needs no slot while it waits for them.

    callboard up --agent examples/children.py
    python examples/children.py

The counterpart of a Celery `chord` and of a Temporal child workflow. The agent has two slots and the tree seven tasks,
three of which wait for others: with `ctx.without_slot()` it comes to its end all the same.
"""

import asyncio

from agent_runtime import Agent, TaskContext, capability
from bus import Client

BOOK = "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness"


class Reader(Agent):
    """Counts words; of a long text it has each half counted by somebody else."""

    slots = 2

    @capability("text.count")
    async def count(self, text: str, ctx: TaskContext) -> int:
        """Return the number of words, which takes its time."""
        words = text.split()
        if len(words) < 8:
            await asyncio.sleep(0.05)
            return len(words)
        middle = len(words) // 2
        halves = [
            await ctx.submit(Reader.count, " ".join(half), run_timeout=30) for half in (words[:middle], words[middle:])
        ]
        async with ctx.without_slot():
            return sum([await half.result() for half in halves])


async def main() -> None:
    """Have a book counted, and show the tree of tasks that did it."""
    async with Client() as bus:
        book = await bus.submit(Reader.count, BOOK)
        print(f"{await book.result(timeout=60)} words")
        await show(bus, book.id)


async def show(bus: Client, task_id: str) -> None:
    """Print a task with its output, and below it its children."""
    task = await bus.get(task_id)
    print(f"{'  ' * task.depth}{task.output} of them by attempt {task.attempt}")
    for child in await bus.children(task_id):
        await show(bus, child.id)


if __name__ == "__main__":
    asyncio.run(main())
