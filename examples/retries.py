"""What fails is tried again after a pause; what is wrong is rejected at once.

    callboard up --agent examples/retries.py
    python examples/retries.py

The counterpart of Celery's `autoretry_for`, arq's `Retry` and Temporal's retry policy: the submitter says how often a
task may be tried, and any exception but `Reject` uses up one attempt.
"""

import asyncio

from pydantic import BaseModel

from agent_runtime import Agent, Reject, TaskContext, capability
from bus import Client, TaskFailedError, TaskHandle

DEGREES = {"Oslo": 4, "Rome": 17}


class Town(BaseModel):
    """Whose weather is asked for."""

    name: str


class Weather(Agent):
    """Asks a weather station that never answers before the third attempt."""

    slots = 4

    @capability("weather.fetch")
    async def fetch(self, town: Town, ctx: TaskContext) -> int:
        """Return how many degrees it has there."""
        if town.name not in DEGREES:
            raise Reject(f"there is no station in {town.name}")
        if ctx.attempt < 3:
            raise ConnectionError(f"the station in {town.name} does not answer")
        return DEGREES[town.name]


async def tell(town: str, handle: TaskHandle[int]) -> None:
    """Print how a task ended, and what became of each attempt."""
    try:
        print(f"{town}: {await handle.result(timeout=60)} degrees")
    except TaskFailedError as failure:
        print(f"{town}: {failure.reason}: {failure.error.message if failure.error else 'no more is known'}")
    for attempt in (await handle.get()).attempts:
        print(f"  attempt {attempt.attempt}: {attempt.outcome}")


async def main() -> None:
    """Ask for three towns: one needs patience, one has too little of it, and one does not exist."""
    async with Client() as bus:
        await tell("Oslo", await bus.submit(Weather.fetch, Town(name="Oslo"), max_attempts=5))
        await tell("Rome", await bus.submit(Weather.fetch, Town(name="Rome"), max_attempts=2))
        await tell("Atlantis", await bus.submit(Weather.fetch, Town(name="Atlantis"), max_attempts=5))


if __name__ == "__main__":
    asyncio.run(main())
