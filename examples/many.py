"""Many tasks in one call, their results as they come, and an urgent one that overtakes them.

    callboard up --agent examples/many.py
    python examples/many.py

The counterpart of a Celery `group` and of `asyncio.as_completed`.
"""

import asyncio

from agent_runtime import Agent, capability
from bus import Client, TaskCreate, TaskPriority

BATCH = 60


class Resizer(Agent):
    """Pretends to resize pictures, four at once."""

    slots = 4

    @capability("picture.resize")
    async def resize(self, name: str) -> str:
        """Return the name of the small picture."""
        await asyncio.sleep(0.05)
        return f"small-{name}"


async def main() -> None:
    """Submit an archive of pictures and, last of all, the one that somebody waits for."""
    archive = [
        TaskCreate(capability="picture.resize", payload=f"{n}.jpg", priority=TaskPriority.LOW) for n in range(BATCH)
    ]
    portrait = TaskCreate(capability="picture.resize", payload="portrait.jpg", priority=TaskPriority.URGENT)
    async with Client() as bus:
        handles = await bus.submit_many([*archive, portrait])
        names: list[str] = [await handle.result() async for handle in bus.as_completed(handles)]
    print(f"{len(names)} pictures, among them {', '.join(sorted(names)[:2])}")
    print(f"submitted last, done as number {names.index('small-portrait.jpg') + 1}: portrait.jpg")


if __name__ == "__main__":
    asyncio.run(main())
