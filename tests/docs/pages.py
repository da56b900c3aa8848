"""The code blocks of a page of Markdown, and the HTML comments that say how a block is to be taken.

A comment on the line before a block may be:

- ``<!-- not run: REASON -->``: the block is only looked at; the reason is for whoever reads the source of the page.
- ``<!-- file: PATH -->``: the block is that file of the repository, docstrings apart.
- ``<!-- save as: PATH -->``: the reader is to save it under that name; commands further down use it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]

_FENCE: Final = re.compile(r"\s*```+(\w*) *(.*)")
_COMMENT: Final = re.compile(r"<!-- (not run|file|save as): *(.*?) *-->")
_PROMPT: Final = "$ "


@dataclass(frozen=True)
class Block:
    """One fenced block: where it stands, its language with what follows it, and the comment before it."""

    page: Path
    line: int
    """Of its first line of code, from 1."""
    language: str
    title: str
    text: str
    not_run: str | None = None
    file: str | None = None
    save_as: str | None = None

    @property
    def place(self) -> str:
        """Where it is, as editors and people read it."""
        return f"{self.page.name}:{self.line}"


@dataclass(frozen=True)
class Step:
    """One command of a block, and the lines that it is said to print; None if the page does not say."""

    command: str
    shown: list[str] | None


def pages() -> list[Path]:
    """Return the pages whose blocks are run."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path) -> Iterator[Block]:
    """Yield the blocks of a page."""
    lines = page.read_text().splitlines()
    comment: re.Match[str] | None = None
    at = 0
    while at < len(lines):
        opening = _FENCE.fullmatch(lines[at])
        if opening is None:
            comment = _COMMENT.fullmatch(lines[at]) or (comment if not lines[at].strip() else None)
            at += 1
            continue
        end = next(n for n in range(at + 1, len(lines)) if lines[n].strip() == "```")
        said = {} if comment is None else {comment[1].replace(" ", "_"): comment[2]}
        yield Block(page, at + 2, opening[1], opening[2], "\n".join(lines[at + 1 : end]) + "\n", **said)
        comment, at = None, end + 1


def steps(block: Block) -> list[Step]:
    """Return the commands of a block: of `console` after their prompts with what they print, of `sh` one a line."""
    text = block.text.replace("\\\n", " ")
    if block.language == "sh":
        return [Step(line, None) for line in text.splitlines() if line.strip() and not line.startswith("#")]
    found: list[Step] = []
    for line in text.splitlines():
        if line.startswith(_PROMPT):
            found.append(Step(line.removeprefix(_PROMPT), None))
        else:
            assert found, f"{block.place}: a console block begins with `$ ` and a command"
            found[-1] = Step(found[-1].command, [*(found[-1].shown or []), line])
    return found


def matches(shown: list[str], printed: str, *, among_others: bool = False) -> bool:
    """Tell whether `printed` is what a page shows; `…` stands for anything, on a line of its own for any lines.

    With `among_others` there may be further lines before, between and after. Spaces count as one.
    """
    some_lines = r"(?:.*\n)*"
    patterns = [
        some_lines if line.strip() == "…" else re.escape(" ".join(line.split())).replace("…", ".*") + r"\n"
        for line in shown
    ]
    between = some_lines if among_others else ""
    text = "".join(f"{' '.join(line.split())}\n" for line in printed.splitlines())
    return re.fullmatch(between + between.join(patterns) + between, text) is not None
