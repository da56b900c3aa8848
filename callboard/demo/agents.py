"""The three agents of the census. Each capability is offered by two of them, so that any one may die.

Their methods are plain `def`: reading and parsing are work for threads, and the event loop stays free.
"""

import ast
import re
import sysconfig
import tokenize
from collections import Counter
from pathlib import Path
from threading import Lock
from typing import Final

from pydantic import BaseModel

from agent_runtime import Agent, Reject, TaskContext, capability

LIBRARY: Final = Path(sysconfig.get_path("stdlib"))

_BRANCHES: Final = (ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.comprehension)
_SHOWN: Final = 10
_PARSING: Final = Lock()
"""Before Python 3.13 `ast.parse` counts its recursion per interpreter: two threads in it end in a SystemError."""


class SourceFile(BaseModel):
    """The task: a file of the standard library."""

    path: str
    """Relative to the library's directory."""


class FunctionComplexity(BaseModel):
    """One function, with its cyclomatic complexity."""

    name: str
    line: int
    complexity: int


class Outline(BaseModel):
    """What a file defines and needs."""

    lines: int
    functions: int = 0
    classes: int = 0
    imports: dict[str, int] = {}
    complexity: int = 0
    most_complex: FunctionComplexity | None = None
    problem: str | None = None
    """Why it could not be parsed: some files are wrong on purpose."""


class TextStats(BaseModel):
    """A file as a text."""

    lines: int
    blank: int
    comments: int
    words: int
    longest_line: int


class Finding(BaseModel):
    """A string that looks like a secret, shown in part."""

    line: int
    kind: str
    shown: str


class SecretsFound(BaseModel):
    """What a scan of one file found."""

    lines: int
    findings: list[Finding] = []


def read(path: str) -> str:
    """Return a source's text by its own declared encoding, or byte by byte where that is wrong."""
    file = (LIBRARY / path).resolve()
    if not file.is_relative_to(LIBRARY.resolve()):
        raise Reject(f"{path} is not in the standard library")
    try:
        with tokenize.open(file) as source:
            return source.read()
    except FileNotFoundError:
        raise Reject(f"there is no file {path} in {LIBRARY}") from None
    except (SyntaxError, UnicodeDecodeError):
        return file.read_text(encoding="latin-1")


def outline_of(text: str) -> Outline:
    """Parse a source and count what it defines; a source that does not parse is a finding, not a failure."""
    found = Outline(lines=text.count("\n") + 1)
    try:
        with _PARSING:
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError) as error:
        return found.model_copy(update={"problem": f"{type(error).__name__}: {error}"[:200]})
    imports: Counter[str] = Counter()
    functions: list[FunctionComplexity] = []
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                functions.append(FunctionComplexity(name=node.name, line=node.lineno, complexity=_complexity(node)))
            case ast.Import():
                imports.update(name.name.partition(".")[0] for name in node.names)
            case ast.ImportFrom(module=str(module), level=0):
                imports[module.partition(".")[0]] += 1
            case _:
                pass
    return found.model_copy(
        update={
            "functions": len(functions),
            "classes": sum(isinstance(node, ast.ClassDef) for node in ast.walk(tree)),
            "imports": dict(imports),
            "complexity": sum(function.complexity for function in functions),
            "most_complex": max(functions, key=lambda function: function.complexity, default=None),
        }
    )


def _complexity(function: ast.AST) -> int:
    """Return McCabe's number: one, and one more for every branch."""
    number = 1
    for node in ast.walk(function):
        if isinstance(node, _BRANCHES):
            number += 1
        elif isinstance(node, ast.BoolOp):
            number += len(node.values) - 1
        elif isinstance(node, ast.Match):
            number += len(node.cases)
    return number


def stats_of(text: str) -> TextStats:
    """Count a text's lines and words."""
    lines = text.splitlines()
    return TextStats(
        lines=len(lines),
        blank=sum(not line.strip() for line in lines),
        comments=sum(line.lstrip().startswith("#") for line in lines),
        words=len(text.split()),
        longest_line=max(map(len, lines), default=0),
    )


_SUSPICIONS: Final = {
    "password in the source": re.compile(r"""(?i)\b(?:password|passwd|secret)\s*=\s*(['"])([^'"\s]{4,})\1"""),
    "key or certificate": re.compile(r"-----BEGIN ([A-Z ]{3,30})-----"),
    "access token": re.compile(r"\b(?:ghp_|AKIA|xox[bap]-)([A-Za-z0-9_-]{10,})"),
    "long hexadecimal string": re.compile(r"""['"]([0-9a-f]{40,})['"]"""),
    "user and password in a URL": re.compile(r"\w+://[^/\s:@'\"]+:([^/\s:@'\"]+)@"),
}


def secrets_in(text: str) -> SecretsFound:
    """Look for strings that may be secrets, and show no more of them than is needed to find them."""
    findings: list[Finding] = []
    for number, line in enumerate(text.splitlines(), 1):
        for kind, pattern in _SUSPICIONS.items():
            found = pattern.search(line)
            if found is not None and len(findings) < _SHOWN:
                text_found = found.group(found.lastindex or 0)
                findings.append(Finding(line=number, kind=kind, shown=f"{text_found[:3]}… ({len(text_found)} chars)"))
    return SecretsFound(lines=text.count("\n") + 1, findings=findings)


class Ada(Agent):
    """Outlines sources and counts words."""

    slots = 4

    @capability("python.outline", version="1.0")
    def outline(self, task: SourceFile) -> Outline:
        """Tell what a source defines and needs."""
        return outline_of(read(task.path))

    @capability("text.stats", version="1.0")
    def stats(self, task: SourceFile) -> TextStats:
        """Count lines and words."""
        return stats_of(read(task.path))


class Ben(Agent):
    """Outlines sources and looks for secrets."""

    slots = 4

    @capability("python.outline", version="1.1")
    def outline(self, task: SourceFile, ctx: TaskContext) -> Outline:
        """Tell what a source defines and needs."""
        ctx.progress(0.1, "read")
        return outline_of(read(task.path))

    @capability("secrets.scan", version="1.0")
    def scan(self, task: SourceFile) -> SecretsFound:
        """Look for what may be a secret."""
        return secrets_in(read(task.path))


class Cleo(Agent):
    """Counts words and looks for secrets."""

    slots = 4

    @capability("text.stats", version="1.0")
    def stats(self, task: SourceFile) -> TextStats:
        """Count lines and words."""
        return stats_of(read(task.path))

    @capability("secrets.scan", version="1.0")
    def scan(self, task: SourceFile) -> SecretsFound:
        """Look for what may be a secret."""
        return secrets_in(read(task.path))
