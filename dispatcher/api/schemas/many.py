"""Which tasks are meant by a request that speaks of many: some by their ids, or all that meet conditions."""

from typing import Final, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bus.filters import TaskFilter
from bus.messages import TaskIdField

MAX_IDS: Final = 1000
"""Tasks that one request may name."""


class Meant(BaseModel):
    """Tasks by their ids, or by conditions; all of a pool only if that is said."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task_ids: tuple[TaskIdField, ...] = Field((), max_length=MAX_IDS, description="Their ids, of any pools.")
    where: TaskFilter | None = Field(None, description="All tasks of the pool that meet these conditions.")
    all: bool = Field(default=False, description="All tasks of the pool: to be said where there are no conditions.")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if bool(self.task_ids) + (self.where is not None or self.all) != 1:
            raise ValueError("say which tasks are meant: by `task_ids`, or by `where`, or `all`")
        if self.where is not None and self.where.empty and not self.all:
            raise ValueError(
                "`where` has no condition, which means all tasks of the pool: if they are meant, say `all`"
            )
        return self

    @property
    def conditions(self) -> TaskFilter | None:
        """What tasks must meet; None if they are named."""
        return None if self.task_ids else (self.where or TaskFilter())

    @property
    def ids(self) -> tuple[str, ...]:
        """Each id once."""
        return tuple(dict.fromkeys(self.task_ids))
