"""A number that is NaN or infinite is no result, wherever it stands and whatever the annotation knows of it."""

import math
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, PlainSerializer, field_serializer

from agent_runtime import Agent, capability
from agent_runtime.testing import AgentKit
from bus import TaskFailedError

ODD = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


class Measured(BaseModel):
    known: float = 0.0
    anything: Any = None


class Meant(BaseModel):
    known: float

    @field_serializer("known")
    def _null(self, known: float) -> float | None:
        return known if math.isfinite(known) else None


OrNull = Annotated[float, PlainSerializer(lambda given: given if math.isfinite(given) else None)]


class Meter(Agent):
    @capability("float")
    async def number(self, task: str) -> float:
        return ODD[task]

    @capability("object")
    async def anything(self, task: str) -> object:
        return ODD[task]

    @capability("nested")
    async def nested(self, task: str) -> dict[str, object]:
        return {"all": [1, {"one": ODD[task]}]}

    @capability("model")
    async def model(self, task: str) -> Measured:
        return Measured(anything=[ODD[task]])

    @capability("model.in.object")
    async def model_in_object(self, task: str) -> object:
        return [Measured(known=ODD[task])]

    @capability("meant")
    async def meant(self, task: str) -> Meant:
        return Meant(known=ODD[task])

    @capability("meant.in.list")
    async def meant_in_list(self, task: str) -> list[OrNull]:
        return [ODD[task]]

    @capability("same")
    async def same(self, task: Any) -> object:
        return task


@pytest.mark.parametrize("kind", ["float", "object", "nested", "model", "model.in.object"])
@pytest.mark.parametrize("which", ODD)
async def test_an_output_with_a_number_that_json_has_not_fails_and_says_so(kind: str, which: str) -> None:
    async with AgentKit(Meter()) as kit:
        with pytest.raises(TaskFailedError, match="returned a number that is NaN or infinite"):
            await kit.run(kind, which)


@pytest.mark.parametrize("output", [None, [None], {"a": None, "b": "NaN"}, "Infinity", [1.5, None, "NaN, null"]])
async def test_nulls_and_words_are_what_they_are(output: object) -> None:
    async with AgentKit(Meter()) as kit:
        assert await kit.run("same", output) == output


async def test_what_an_author_has_made_null_is_null() -> None:
    async with AgentKit(Meter()) as kit:
        assert await kit.run("meant", "nan") == {"known": None}
        assert await kit.run("meant.in.list", "inf") == [None]
