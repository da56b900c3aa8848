"""From the answers of the census to what is told of them: pure, and the same for people and for programs."""

from collections import Counter
from collections.abc import Iterable
from statistics import median
from typing import Any, Final

from pydantic import BaseModel

from bus.states import FailureReason, TaskPriority, TaskStatus
from callboard.demo.census import Answer, Census
from callboard.demo.sources import OUTLINE, SCAN, STATS

TOP: Final = 5
SUSPICIONS_SHOWN: Final = 8


class Ranked(BaseModel):
    """One line of a ranking."""

    what: str
    number: int


class Worker(BaseModel):
    """What one agent did."""

    agent_id: str
    done: dict[str, int]
    killed: bool


class Wait(BaseModel):
    """How long tasks of one priority waited for their first agent, in seconds."""

    priority: str
    tasks: int
    median_s: float


class Handover(BaseModel):
    """The death of an agent, and what became of what it held."""

    agent_id: str
    pid: int
    at_s: float
    after_tasks: int
    running: int
    lost: int
    """Tasks it had and never answered: all of them are in `taken_over_by`."""
    begun: int
    """Those of them that it had begun, as far as it had reported: this cost them an attempt."""
    given_after_death: int
    """Those of them that it was given when it was dead already: nobody knew before its lease ended."""
    taken_over_by: dict[str, int]
    noticed_after_s: float | None


class Report(BaseModel):
    """What the census has found."""

    python: str
    server: str
    files: int
    counted: int
    complete: bool
    seconds: float
    per_second: float
    lines: int
    functions: int
    classes: int
    words: int
    retried: int
    """Tasks that were given out more than once."""
    retried_because: dict[str, int]
    """How many of them for which reason, by the outcome of the first attempt."""
    failed: list[str]
    most_complex: list[Ranked]
    largest: list[Ranked]
    most_imported: list[Ranked]
    unparsable: list[str]
    suspicions: list[str]
    workers: list[Worker]
    waits: list[Wait]
    handover: Handover | None
    problem: str | None = None


def report_on(census: Census) -> Report:
    """Draw up the report."""
    answers = census.answers
    good = [answer for answer in answers if answer.record.status is TaskStatus.COMPLETED]
    outlines = [answer for answer in good if answer.question.capability == OUTLINE]
    texts = [answer for answer in good if answer.question.capability == STATS]
    scans = [answer for answer in good if answer.question.capability == SCAN]
    again = Counter(answer.record.attempts[0].outcome for answer in answers if answer.record.attempt > 1)
    imports: Counter[str] = Counter()
    for answer in outlines:
        imports.update(answer.output["imports"])
    return Report(
        python=census.python,
        server=census.server,
        files=census.asked,
        counted=len(good),
        complete=len(good) == census.asked and census.problem is None,
        seconds=round(census.seconds, 2),
        per_second=round(len(answers) / census.seconds, 1),
        lines=sum(answer.output["lines"] for answer in good),
        functions=_total(outlines, "functions"),
        classes=_total(outlines, "classes"),
        words=_total(texts, "words"),
        retried=sum(again.values()),
        retried_because=dict(again),
        failed=[f"{a.question.path}: {a.error}" for a in answers if a.record.status is not TaskStatus.COMPLETED],
        most_complex=_top(
            (f"{answer.question.path}:{found['line']} {found['name']}", found["complexity"])
            for answer in outlines
            if (found := answer.output["most_complex"]) is not None
        ),
        largest=_top((answer.question.path, answer.output["lines"]) for answer in good),
        most_imported=_top(imports.items()),
        unparsable=sorted(
            f"{answer.question.path}: {answer.output['problem']}" for answer in outlines if answer.output["problem"]
        ),
        suspicions=[
            f"{answer.question.path}:{found['line']}  {found['kind']}: {found['shown']}"
            for answer in sorted(scans, key=lambda answer: answer.question.path)
            for found in answer.output["findings"]
        ],
        workers=_workers(census),
        waits=_waits(answers),
        handover=_handover(census),
        problem=census.problem,
    )


def _total(answers: Iterable[Answer], name: str) -> int:
    return sum(answer.output[name] for answer in answers)


def _top(found: Iterable[tuple[str, Any]]) -> list[Ranked]:
    ranked = sorted(found, key=lambda item: (-item[1], item[0]))[:TOP]
    return [Ranked(what=what, number=number) for what, number in ranked]


def _workers(census: Census) -> list[Worker]:
    done: dict[str, Counter[str]] = {agent.agent_id: Counter() for agent in census.agents}
    for answer in census.answers:
        if answer.record.agent_id is not None:
            done.setdefault(answer.record.agent_id, Counter())[answer.question.capability] += 1
    dead = census.death.agent_id if census.death else None
    return [Worker(agent_id=name, done=dict(numbers), killed=name == dead) for name, numbers in sorted(done.items())]


def _waits(answers: list[Answer]) -> list[Wait]:
    by_priority: dict[TaskPriority, list[float]] = {}
    for answer in answers:
        record = answer.record
        first = record.attempts[0].assigned_at if record.attempts else record.assigned_at
        if first is not None:
            by_priority.setdefault(record.priority, []).append((first - record.enqueued_at) / 1000)
    order = sorted(by_priority, key=list(TaskPriority).index, reverse=True)
    return [
        Wait(
            priority=priority.value, tasks=len(by_priority[priority]), median_s=round(median(by_priority[priority]), 2)
        )
        for priority in order
    ]


def _handover(census: Census) -> Handover | None:
    death = census.death
    if death is None:
        return None
    heirs: Counter[str] = Counter()
    gaps: list[float] = []
    begun = given_after_death = 0
    for answer in census.answers:
        for lost, following in zip(answer.record.attempts, answer.record.attempts[1:], strict=False):
            if lost.outcome == FailureReason.AGENT_LOST and lost.agent_id == death.agent_id:
                heirs[following.agent_id] += 1
                begun += lost.started_at is not None
                given_after_death += lost.assigned_at > death.moment
                gaps.append((following.assigned_at - lost.assigned_at) / 1000)
    return Handover(
        agent_id=death.agent_id,
        pid=death.pid,
        at_s=round(death.at, 2),
        after_tasks=death.after,
        running=death.running,
        lost=heirs.total(),
        begun=begun,
        given_after_death=given_after_death,
        taken_over_by=dict(heirs),
        noticed_after_s=round(max(gaps), 1) if gaps else None,
    )
