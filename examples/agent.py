"""The agent of the README: it counts words. Run it with `callboard up --agent examples/agent.py`."""

from pydantic import BaseModel

from agent_runtime import Agent, TaskContext, capability


class Text(BaseModel):
    """What a task brings."""

    text: str


class Count(BaseModel):
    """What comes back."""

    words: int


class Counter(Agent):
    """Counts the words of up to eight texts at once."""

    slots = 8

    @capability("text.count", version="1.2", languages=["en", "de"])
    async def count(self, task: Text, ctx: TaskContext) -> Count:
        """Count the words of one text."""
        await ctx.progress(0.5, "half way")
        return Count(words=len(task.text.split()))
