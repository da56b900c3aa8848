"""Judges a run by what submitters and agents have written down themselves; the ledger is not asked.

Three things are compared: what was receipted, what agents began and ended, and the outcomes that submitters were told.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Final

from tests.chaos.journal import Line, read
from tests.chaos.strikes import Strike

POISON_LOSSES: Final = 3
POISON_BEGUN: Final = 2

TAKES_THE_LEASE: Final = {
    "agent gone",
    "agent stopped beyond its lease",
    "two agents with one id",
    "agent without network",
    "agent in a black hole",
    "agent mute",
    "agent deaf",
}
"""After these an agent may go on with what was given to others."""
KEEPS_FROM_CANCELLING: Final = {"agent stopped beyond its lease"}
"""Who is stopped cannot cancel what is exclusive."""
KILLS: Final = TAKES_THE_LEASE | {"agent killed"}
"""By these an agent is lost, whatever it was doing."""
LOST_LATER_S: Final = 45.0
"""How long after one of these began an agent may be found lost: the longest lasts 30 s, a lease 5 s, an outage more."""
DEEDS: Final = {
    "dies": "task that calls os._exit",
    "killed": "task that is killed with its agent",
    "grows": "task that takes all memory",
}
FLUSHED: Final = "everything flushed"
EMPTY: Final = "server restarted empty"
LOSES_ALL: Final = {FLUSHED, EMPTY}
"""What was under way then may be lost, if that is told; what is submitted again, since its receipt was lost, is new."""
AFTERMATH_S: Final = 8.0
"""How long the consequences of a fault may last that takes an agent's lease."""


@dataclass
class Execution:
    """One attempt that an agent began."""

    token: str
    task: str
    attempt: int
    n: int
    agent: str
    exclusive: bool
    pid: int
    began: float
    end: str | None = None
    ended: float | None = None


@dataclass
class Order:
    """A job as its submitter knows it."""

    asked: Line
    receipts: list[Line] = field(default_factory=list)
    outcomes: list[Line] = field(default_factory=list)
    errors: list[Line] = field(default_factory=list)


class Evidence:
    """All journals of a run."""

    def __init__(self, folder: Path) -> None:
        self.executions: dict[str, Execution] = {}
        self.of_task: dict[str, list[Execution]] = defaultdict(list)
        self.deeds: Counter[str] = Counter()
        """How often tasks did to their agents what is in `DEEDS`."""
        self._first_begun: dict[str, list[float]] = defaultdict(list)
        """Of each agent when each of its processes began its first execution, in order."""
        pids: set[int] = set()
        for line in read(folder, "agent-*.jsonl"):
            if line["what"] == "begin":
                execution = Execution(
                    *(line[name] for name in ("token", "task", "attempt", "n", "agent", "exclusive", "pid", "at"))
                )
                self.executions[execution.token] = execution
                self.of_task[execution.task].append(execution)
                if execution.pid not in pids:
                    pids.add(execution.pid)
                    self._first_begun[execution.agent].append(execution.began)
            else:
                execution = self.executions[line["token"]]
                if line["what"] in DEEDS:
                    self.deeds[DEEDS[line["what"]]] += 1
                execution.end, execution.ended = line["what"], line["at"]
        self.orders: dict[tuple[str, int], Order] = {}
        for path in sorted(folder.glob("producer-*.jsonl")):
            for line in read(folder, path.name):
                self._take(path.stem, line)

    def _take(self, producer: str, line: Line) -> None:
        order = (producer, line["n"])
        match line["what"]:
            case "asked":
                self.orders[order] = Order(line)
            case "receipt":
                self.orders[order].receipts.append(line)
            case "outcome":
                self.orders[order].outcomes.append(line)
            case "lost":
                self.orders[order].errors.append(line)

    def lost(self, agent: str, at: float, strikes: Iterable[Strike]) -> bool:
        """Tell whether anything was done to an agent for which it may have been found lost at an instant."""
        struck = [strike.began for strike in strikes if strike.fault in KILLS and strike.victim == agent]
        struck += [
            one.ended for one in self.executions.values() if one.agent == agent and one.end in DEEDS and one.ended
        ]
        return any(began <= at <= began + LOST_LATER_S for began in struck)

    def in_flight(self, strike: Strike) -> int:
        """Return how many executions were under way when it struck, at its victim if that is an agent."""
        return sum(
            one.began <= strike.began < self._until(one)
            for one in self.executions.values()
            if one.agent == strike.victim or not strike.victim.startswith("a")
        )

    def _until(self, one: Execution) -> float:
        """Return when it ended; without an end it lasted until the next process of its agent began something."""
        if one.ended is not None:
            return one.ended
        return next((at for at in self._first_begun[one.agent] if at > one.began), one.began + 1)


def judge(evidence: Evidence, strikes: Iterable[Strike]) -> Iterator[str]:
    """Yield every promise that was broken, with the evidence."""
    seen: dict[str, str] = {}
    all_strikes = list(strikes)
    for (producer, n), order in evidence.orders.items():
        name = f"{producer} {n}"
        ids = {line["task"] for line in order.receipts}
        if len(ids) > 1 and not _lost_all(all_strikes, order.asked["at"], order.receipts[-1]["at"]):
            yield f"{name}: one key, and several tasks: {sorted(ids)}"
        for task in ids:
            if seen.setdefault(task, name) != name:
                yield f"{name}: task {task} is that of {seen[task]}, too"
        if order.receipts and not _told_of_a_loss(order, all_strikes):
            yield from (f"{name}: {problem}" for problem in _of_order(order, evidence, all_strikes))
    for task, executions in evidence.of_task.items():
        yield from (f"task {task}: {problem}" for problem in _of_task(executions, all_strikes))


def _lost_all(strikes: list[Strike], since: float, until: float) -> bool:
    """Tell whether the server lost everything within that time, or so shortly before that somebody did not know yet."""
    return any(
        strike.fault in LOSES_ALL and strike.began <= until and strike.ended + AFTERMATH_S >= since
        for strike in strikes
    )


def _told_of_a_loss(order: Order, strikes: list[Strike]) -> bool:
    """Tell whether it was lost with everything, and all who waited were told so."""
    return bool(order.errors) and all(
        line["error"].startswith("UnknownTaskError") and _lost_all(strikes, order.asked["at"], line["at"])
        for line in order.errors
    )


def _of_order(order: Order, evidence: Evidence, strikes: list[Strike]) -> Iterator[str]:
    task = order.receipts[0]["task"]
    for line in order.errors:
        yield f"task {task} was receipted, and its submitter was told {line['error']}"
    if not order.outcomes:
        yield f"task {task} was receipted, and its submitter was never told how it ended: {evidence.of_task[task]}"
        return
    if len(order.outcomes) > 1:
        yield f"task {task} ended {len(order.outcomes)} times: {order.outcomes}"
    outcome, asked, executions = order.outcomes[0], order.asked, evidence.of_task[task]
    lost = _lost_all(strikes, asked["at"], outcome["at"])
    if outcome["task_id"] != task:
        yield f"it has the outcome of another task: {outcome}"
    yield from _of_outcome(outcome, asked, executions, evidence, strikes)
    if asked["once"] and len(executions) > 1 and not lost:
        yield f"task {task} may be tried only once and was begun {len(executions)} times: {executions}"


def _of_outcome(
    outcome: Line, asked: Line, executions: list[Execution], evidence: Evidence, strikes: list[Strike]
) -> Iterator[str]:
    status, reason = outcome["status"], outcome["reason"]
    if status == "COMPLETED":
        yield from _of_result(outcome, asked, evidence)
    elif status == "CANCELLED" and asked["cancel"]:
        pass
    elif status == "FAILED" and asked["once"] and (reason == "agent_lost" or (reason == "error" and asked["fails"])):
        pass  # its only attempt was lost with its agent, or was to fail
    elif status == "FAILED" and reason == "poison":
        # An attempt that was announced may not have begun when its agent died: the more so must they all have died.
        if len(executions) < POISON_BEGUN and not _all_were_lost(outcome, evidence, strikes):
            yield f"it is poison, and was not begun so often: {outcome}, {executions}"
    else:
        yield f"it ended as {status} ({reason}), for which there is no cause: {outcome}, {executions}"


def _all_were_lost(outcome: Line, evidence: Evidence, strikes: list[Strike]) -> bool:
    """Tell whether something was done to each of the agents that a task is said to have killed."""
    clocks = time.time() - time.monotonic()
    told = outcome["error"]["details"]
    return len(told) == POISON_LOSSES and all(
        evidence.lost(one["agent_id"], one["lost_at"] / 1000 - clocks, strikes) for one in told
    )


def _of_result(outcome: Line, asked: Line, evidence: Evidence) -> Iterator[str]:
    output = outcome["output"]
    execution = evidence.executions.get(output["token"])
    if execution is None or execution.end != "end":
        yield f"its result is of no execution that has ended: {outcome}, {execution}"
        return
    which = (execution.task, execution.attempt, execution.n, output["n"])
    if which != (outcome["task_id"], outcome["attempt"], asked["n"], asked["n"]):
        yield f"its result is of another execution: {outcome}, {execution}"


def _of_task(executions: list[Execution], strikes: list[Strike]) -> Iterator[str]:
    if executions and _lost_all(strikes, executions[0].began, executions[-1].began):
        return  # what the next leader knows of it begins anew
    attempts = [one.attempt for one in executions]
    if len(set(attempts)) < len(attempts):
        yield f"an attempt was begun twice: {executions}"
    for earlier, later in pairwise(executions):
        if earlier.ended is None or later.began >= earlier.ended or later.attempt < earlier.attempt:
            continue
        excuses = KEEPS_FROM_CANCELLING if earlier.exclusive else TAKES_THE_LEASE
        struck = [
            strike
            for strike in strikes
            if strike.fault in excuses
            and strike.victim == earlier.agent
            and strike.began <= later.began
            and strike.ended + AFTERMATH_S >= earlier.began
        ]
        if not struck:
            yield f"a later attempt began while an earlier one ran, and its agent was well: {earlier}, {later}"
