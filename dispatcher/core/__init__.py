"""The scheduling core: pure and deterministic. `events in, now → decisions out`.

Nothing in this package imports asyncio, redis, faststream or fastapi, reads a clock or draws an unseeded random
number (an import contract proves the first, replaying a recorded run the rest). It takes the wire's own pydantic
messages inside its events: converting each of them once more would cost more than deciding what to do with it.
"""
