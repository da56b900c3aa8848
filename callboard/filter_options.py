"""Options that say which tasks are meant, the same for every command that speaks of many."""

from dataclasses import dataclass
from typing import Annotated, Final

from cyclopts import Parameter

from bus.clock import wall_ms
from bus.filters import TaskFilter, instant
from bus.states import FailureReason, TaskPriority, TaskStatus
from callboard.failures import UsageError
from callboard.options import Flag

_Instant = Annotated[str | None, Parameter(metavar="WHEN")]
_INSTANTS: Final = ("enqueued_after", "enqueued_before", "ended_after", "ended_before")


@Parameter(name="*")
@dataclass(frozen=True)
class FilterOptions:
    """Conditions on tasks; all that are given must hold."""

    capability: Annotated[str | None, Parameter(metavar="NAME", help="Only tasks of this capability.")] = None
    tag: Annotated[
        list[str] | None, Parameter(metavar="WORD", help="Only tasks with this tag; may be repeated, then with all.")
    ] = None
    fairness_key: Annotated[str | None, Parameter(metavar="KEY", help="Only tasks of this fairness key.")] = None
    of_priority: Annotated[TaskPriority | None, Parameter(help="Only tasks that are as urgent as this.")] = None
    agent: Annotated[
        str | None, Parameter(metavar="ID", help="Only tasks that this agent has, or had the last attempt of.")
    ] = None
    error: Annotated[
        str | None, Parameter(metavar="TYPE", help="Only tasks with an error of this type, e.g. ValueError.")
    ] = None
    enqueued_after: Annotated[
        _Instant, Parameter(help="Only tasks enqueued since: 2026-11-25T08:00, or 2h for two hours ago.")
    ] = None
    enqueued_before: Annotated[_Instant, Parameter(help="Only tasks enqueued earlier, written alike.")] = None

    def filter(self, status: TaskStatus | None = None) -> TaskFilter:
        """Return the filter; "ago" counts from this machine's clock. Raises `UsageError`."""
        now = wall_ms()
        try:
            instants = {name: instant(text, now) for name in _INSTANTS if (text := getattr(self, name, None))}
            return TaskFilter.of(
                status=None if status is None else (status,),
                capability=self.capability,
                tags=self.tag,
                fairness_key=self.fairness_key,
                priority=self.of_priority,
                agent_id=self.agent,
                error=self.error,
                reason=getattr(self, "failed_as", None),
                **instants,
            )
        except ValueError as error:
            raise UsageError(str(error)) from None


@Parameter(name="*")
@dataclass(frozen=True)
class EndedFilterOptions(FilterOptions):
    """The same, and conditions that only tasks can meet which have ended."""

    failed_as: Annotated[
        list[FailureReason] | None, Parameter(help="Only tasks that failed for this reason, or another one of these.")
    ] = None
    ended_after: Annotated[_Instant, Parameter(help="Only tasks that ended since.")] = None
    ended_before: Annotated[_Instant, Parameter(help="Only tasks that ended earlier.")] = None


NO_FILTER: Final = FilterOptions()
NO_ENDED_FILTER: Final = EndedFilterOptions()

All = Annotated[Flag, Parameter(name="--all", help="All there are, if no condition is given.")]


def which(task_ids: list[str] | None, where: TaskFilter, *, everything: bool, command: str) -> TaskFilter | None:
    """Return the filter if it says which tasks are meant, None if the ids do; raise `UsageError` if it is not clear."""
    if task_ids:
        if everything or not where.empty:
            raise UsageError("tasks are given by their ids and by conditions: leave one of them out")
        return None
    if where.empty and not everything:
        raise UsageError(f"{command} what? Give ids, or conditions as --tag, or --all")
    return where
