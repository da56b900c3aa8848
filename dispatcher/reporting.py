"""What an observer is told of the leader's work: after each pass, and once a second of what stands."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from heapq import nlargest
from typing import Final

from bus.records import AgentWorkload
from bus.states import AgentStatus, TaskStatus
from dispatcher.core.decisions import Decisions, Ended
from dispatcher.core.scheduler import Scheduler
from dispatcher.core.terms import MILLI
from dispatcher.observer import AgentGauge, DispatcherObserver, QueueGauge

SHOWN: Final = 200
"""Of so many classes of requirements, those with most waiting tasks, people and Prometheus are told."""


def report_pass(observer: DispatcherObserver, decisions: Decisions) -> None:
    """Tell `observer` of a pass that was stored; grouped, so that its cost does not grow with every task."""
    for (capability, priority), count in Counter((one.capability, one.priority) for one in decisions.accepted).items():
        observer.accepted(capability, priority, count)
    for firing in decisions.firings:
        observer.firings(firing.schedule, firing.outcome, firing.count)
    if decisions.placed:
        waits: dict[str, list[float]] = defaultdict(list)
        for placed in decisions.placed:
            waits[placed.capability].append(placed.waited_ms / 1000)
        for capability, seconds in waits.items():
            observer.placed(capability, seconds)
    if decisions.ended:
        _report_ends(observer, decisions.ended)
    for (capability, reason), count in Counter(decisions.retried).items():
        observer.retried(capability, reason, count)
    for outcome, count in Counter(decisions.cancels).items():
        observer.cancels(outcome, count)
    for kind, count in Counter(decisions.stale).items():
        observer.stale(kind, count)
    _report_dead_letters(observer, decisions)


def _report_dead_letters(observer: DispatcherObserver, decisions: Decisions) -> None:
    for capability, count in Counter(decisions.requeued).items():
        observer.requeued(capability, count)
    if decisions.purged:
        observer.purged(decisions.purged)


def _report_ends(observer: DispatcherObserver, ended: Sequence[Ended]) -> None:
    ends: dict[tuple[str, str, str], tuple[list[float], list[float]]] = {}
    for one in ended:
        runs, totals = ends.setdefault((one.capability, one.status, one.reason), ([], []))
        runs.append(one.run_ms / 1000)
        totals.append(one.total_ms / 1000)
    for (capability, status, reason), (runs, totals) in ends.items():
        observer.finished(capability, status, reason, runs, totals)


def report_standing(observer: DispatcherObserver, scheduler: Scheduler) -> None:
    """Tell `observer` of agents, and of the longest queues, as they are."""
    fleet, now = scheduler.board.fleet, scheduler.board.now
    depths: Counter[tuple[str, str]] = Counter()
    for cls in nlargest(SHOWN, fleet.classes.values(), key=lambda cls: cls.waiting):
        for priority, count in cls.by_priority.items():
            if count:
                depths[cls.requirement.capability, priority.value] += count
    observer.queues([QueueGauge(capability, priority, n) for (capability, priority), n in depths.items()])
    observer.agents(
        [
            AgentGauge(
                agent.id,
                agent.status.value,
                agent.health.value,
                agent.slots,
                len(agent.tasks),
                max(0.0, (now - agent.last_beat) / 1000),
                agent.pause is not None,
                tuple(
                    (one.kind.value, one.state_at(now).value)
                    for one in (agent.request, agent.update)
                    if one is not None and one.open
                ),
            )
            for agent in fleet.agents.values()
        ]
    )


def workloads(scheduler: Scheduler) -> Mapping[str, str]:
    """Return the JSON of each agent's `AgentWorkload`, by its id."""
    loads: dict[str, str] = {}
    for agent in scheduler.board.fleet.agents.values():
        running = sum(1 for task in agent.tasks.values() if task.status is TaskStatus.RUNNING)
        status = agent.status
        if status in (AgentStatus.IDLE, AgentStatus.RUNNING):
            status = AgentStatus.RUNNING if agent.tasks else AgentStatus.IDLE
        loads[agent.id] = AgentWorkload(
            agent_id=agent.id,
            status=status,
            slots=agent.slots,
            running=running,
            assigned=len(agent.tasks) - running,
            completed=agent.completed,
            failed=agent.failed,
            used=agent.used,
            waiting=sum(1 for task in agent.tasks.values() if task.current is not None and task.current.waiting),
            occupied=agent.occupied,
            granted={name: amount / MILLI for name, amount in agent.granted.items() if amount},
        ).model_dump_json()
    return loads


async def reasons(scheduler: Scheduler) -> Mapping[str, str]:
    """Return why tasks wait, by `bus.requirements.requirement_key`: for those requirements with most tasks.

    Lets the loop turn between any two, for what is to be said of one may take a look at every agent.
    """
    fleet = scheduler.board.fleet
    why: dict[str, str] = {}
    for cls in nlargest(SHOWN, fleet.classes.values(), key=lambda cls: cls.waiting):
        if cls.waiting:
            why[cls.requirement.key] = fleet.why_waiting(cls)
            await asyncio.sleep(0)
    return why
