"""How commands print: JSON for programs, tables for people. Only results go to stdout.

A table is never cut in a pipe: there it is as wide as it needs to be.
"""

import io
import sys
from collections.abc import Iterable, Sequence
from typing import Final

from pydantic_core import to_json
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

_GAP: Final = 2
_LAST_COLUMN: Final = 16
_WIDE: Final = 10_000
"""Columns of a pipe: no line is to be broken there."""


def json_text(value: object) -> str:
    """Return `value` as JSON on one line."""
    return to_json(value, inf_nan_mode="constants").decode()


def print_json(value: object, *, lines: bool = False) -> None:
    """Print one JSON document; with `lines` on a single line, as one of many."""
    body = to_json(value, indent=None if lines else 2, inf_nan_mode="constants")
    sys.stdout.buffer.write(body + b"\n")
    sys.stdout.flush()


def print_line(text: str) -> None:
    """Print one line that programs may read: no colours, no wrapping."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def say(text: str) -> None:
    """Tell people something that is no result."""
    sys.stderr.write(f"{text}\n")


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, spare: Sequence[str] = (), caption: str = ""
) -> None:
    """Print rows under headings; what is None is left blank. `caption` stands below.

    On a terminal that is too narrow the last column is shortened, then the `spare` columns are left out one by one,
    and then each row becomes a block of its own: its first cell, and the others below it.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(column), *(row[n].cell_len for row in cells), 0) for n, column in enumerate(columns)]
    least = [*widths[:-1], min(widths[-1], _LAST_COLUMN)]
    kept = list(range(len(columns)))
    droppable = [columns.index(column) for column in spare]
    while not (fits := sum(least[n] + _GAP for n in kept) <= _width()) and droppable:
        kept.remove(droppable.pop(0))
    if fits:
        shown: RenderableType = _table([columns[n] for n in kept], ([row[n] for n in kept] for row in cells))
    else:
        shown = Group(*(_block(columns, row) for row in cells))
    _print(shown, *([Text(caption, style="dim")] if caption else []))


def _table(columns: Sequence[str], rows: Iterable[Sequence[Text]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, no_wrap=True, overflow="ellipsis")
    for row in rows:
        table.add_row(*row)
    return table


def _block(columns: Sequence[str], row: Sequence[Text]) -> Text:
    lines = [Text(row[0].plain, style="bold")]
    lines += [Text(f"  {name} {value.plain}") for name, value in zip(columns[1:], row[1:], strict=True) if value.plain]
    return Text("\n").join(lines)


def print_rows(title: str, rows: Iterable[tuple[str, object]]) -> None:
    """Print what is known of one thing: a name and a value a row, those without a value left out."""
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), show_header=False)
    table.add_column(style="bold", overflow="fold")
    table.add_column(overflow="fold")
    for name, value in rows:
        if value not in (None, "", (), [], {}):
            table.add_row(_cell(name), _cell(value))
    _print(Text(title, style="bold"), table)


def _cell(value: object) -> Text:
    return Text("" if value is None else str(value))


def _width() -> int:
    return Console().width if sys.stdout.isatty() else _WIDE


def _print(*parts: RenderableType) -> None:
    if sys.stdout.isatty():
        Console().print(*parts, sep="\n")
        return
    # Rich takes a pipe for 80 columns wide and would break ids.
    text = io.StringIO()
    Console(width=_WIDE, file=text).print(*parts, sep="\n")
    for line in text.getvalue().splitlines():
        sys.stdout.write(f"{line.rstrip()}\n")
    sys.stdout.flush()
