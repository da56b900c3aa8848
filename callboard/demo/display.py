"""How the census looks in a terminal: a bar while it runs, a page when it is over. 80 columns are enough."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bus.states import FailureReason
from callboard.demo import census
from callboard.demo.findings import SUSPICIONS_SHOWN, Handover, Ranked, Report
from callboard.demo.sources import OUTLINE, SCAN, STATS

LINES: Final = 10
"""How many lines of progress a file or a pipe gets."""

_REASONS: Final = {
    FailureReason.AGENT_LOST.value: "because their agent died",
    "error": "after an error",
    "timeout": "after a timeout",
    "returned": "handed back by a busy agent",
    "taken_back": "taken from a blocked agent",
}
"""Why a task is given out again, by how its attempt before ended."""


@contextmanager
def progress(console: Console) -> Iterator[census.Progress]:
    """Show how far the census is: a bar in a terminal, a line now and then elsewhere."""
    if not console.is_terminal:
        yield _lines(console)
        return
    columns = (
        TextColumn("census"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[what]}"),
    )
    with Progress(*columns, console=console) as bar:
        shown = bar.add_task("census", total=None, what="")

        def update(ended: int, total: int, what: str) -> None:
            bar.update(shown, completed=ended, total=total)
            if what:
                bar.update(shown, what=what)

        yield update


def _lines(console: Console) -> census.Progress:
    said = -1

    def update(ended: int, total: int, what: str) -> None:
        nonlocal said
        step = LINES * ended // max(total, 1)
        if what or step > said:
            console.print(f"census: {ended} of {total} files{f': {what}' if what else ''}", highlight=False)
            said = step

    return update


def show(report: Report, console: Console) -> None:
    """Print the report."""
    say = console.print
    say()
    say(f"[bold]A census of Python {report.python}'s standard library[/]")
    whole = "complete" if report.complete else "[red]NOT complete[/]"
    say(f"{report.counted:,} of {report.files:,} files counted, {whole}, in {report.seconds:.1f} s")
    say(f"{report.per_second:,.0f} tasks a second; server: {report.server}", highlight=False)
    say(_again(report), highlight=False)
    say(
        f"{report.lines:,} lines; {report.functions:,} functions and {report.classes:,} classes outlined",
        highlight=False,
    )
    say()
    _ranking(console, "The most complex function of a file (McCabe)", report.most_complex)
    _ranking(console, "The longest files (lines)", report.largest)
    _ranking(console, "The most imported modules (import statements)", report.most_imported)
    _list(console, "Sources that do not parse", report.unparsable)
    _list(console, "Strings that look like secrets (shown in part)", report.suspicions)
    _workers(console, report)
    _waits(console, report)
    _death(console, report)
    for failure in report.failed[:SUSPICIONS_SHOWN]:
        say(f"[red]failed:[/] {failure}", highlight=False)
    if report.problem is not None:
        say(f"[red]{report.problem}[/]")


def _ranking(console: Console, title: str, ranked: list[Ranked]) -> None:
    if not ranked:
        return
    console.print(f"[bold]{title}[/]")
    for line in ranked:
        console.print(f"  {line.number:>7,}  {line.what}", highlight=False, no_wrap=True, overflow="ellipsis")
    console.print()


def _list(console: Console, title: str, lines: list[str]) -> None:
    if not lines:
        return
    console.print(f"[bold]{title}[/]: {len(lines)}")
    for line in lines[:SUSPICIONS_SHOWN]:
        console.print(f"  {line}", highlight=False, no_wrap=True, overflow="ellipsis", markup=False)
    if len(lines) > SUSPICIONS_SHOWN:
        console.print(f"  … and {len(lines) - SUSPICIONS_SHOWN} more")
    console.print()


def _workers(console: Console, report: Report) -> None:
    console.print("[bold]Who did what[/]")
    table = Table()
    table.add_column("agent")
    for capability in (OUTLINE, STATS, SCAN):
        table.add_column(capability, justify="right")
    table.add_column("tasks", justify="right")
    for worker in report.workers:
        name = f"{worker.agent_id} [red](killed)[/]" if worker.killed else worker.agent_id
        numbers = [str(worker.done.get(capability, "")) for capability in (OUTLINE, STATS, SCAN)]
        table.add_row(name, *numbers, str(sum(worker.done.values())))
    console.print(table)
    console.print()


def _waits(console: Console, report: Report) -> None:
    console.print("[bold]Median wait in seconds[/] (each agent takes the most urgent task that it can do)")
    for wait in report.waits:
        console.print(f"  {wait.median_s:>7.2f}  {wait.priority}, {_tasks(wait.tasks)}", highlight=False)
    console.print()


def _death(console: Console, report: Report) -> None:
    death = report.handover
    if death is None:
        return
    console.print(f"[bold]The death of {death.agent_id}[/]")
    console.print(
        f"Its process {death.pid} was killed by SIGKILL after {death.at_s:.1f} s, when {_tasks(death.after_tasks)} had "
        f"ended. {_bequest(death)}",
        highlight=False,
    )
    console.print()


def _bequest(death: Handover) -> str:
    """Tell what became of the dead agent's tasks, and what it cost them."""
    if not death.lost:
        return "It had nothing in its hands."
    late = f", and got {death.given_after_death} more until its lease ended" if death.given_after_death else ""
    heirs = " and ".join(f"{number} by {name}" for name, number in sorted(death.taken_over_by.items()))
    unbegun = death.lost - death.begun
    costs = [f"{death.begun} it had begun, which costs one of their attempts"] if death.begun else []
    costs += [f"{unbegun} it had not begun, which costs nothing"] if unbegun else []
    had = _tasks(death.lost - death.given_after_death)
    return (
        f"It had {had} in its hands{late}: {'; '.join(costs)}. Others did them ({heirs}), at the latest "
        f"{death.noticed_after_s:.1f} s after they were given to it."
    )


def _again(report: Report) -> str:
    """Tell how many tasks were given out more than once, and why."""
    reasons = [(_REASONS.get(how, f"after {how}"), number) for how, number in report.retried_because.items()]
    if not reasons:
        return "no task had to be given out again"
    if len(reasons) == 1:
        return f"{_tasks(report.retried)} given out again, {reasons[0][0]}"
    return f"{_tasks(report.retried)} given out again: {', '.join(f'{number} {why}' for why, number in reasons)}"


def _tasks(number: int) -> str:
    return f"{number:,} task{'s' * (number != 1)}"
