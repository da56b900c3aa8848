"""Naming an agent on a command line: what is found, and the one line that says what to do when nothing is."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_runtime.errors import AgentLoadError
from agent_runtime.loading import load_agent, make_agent

AGENT = """
from agent_runtime import Agent, capability

class {name}(Agent):
    @capability("{name}.do")
    async def do(self, task: int) -> int:
        return task
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Provide a working directory of its own; what is imported from it is forgotten again."""
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def _write(folder: Path, file: str, text: str) -> None:
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _error(target: str) -> str:
    with pytest.raises(AgentLoadError) as caught:
        load_agent(target)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_module_of_the_working_directory_and_its_class(folder: Path) -> None:
    _write(folder, "one_agent.py", AGENT.format(name="One"))
    assert load_agent("one_agent:One").__name__ == "One"


def test_the_class_may_be_left_out_if_there_is_one(folder: Path) -> None:
    _write(folder, "parent_agent.py", AGENT.format(name="Parent"))
    _write(folder, "single_agent.py", "from parent_agent import Parent" + AGENT.format(name="Single"))
    assert load_agent("single_agent").__name__ == "Single"


def test_a_package_and_a_path_will_do(folder: Path) -> None:
    _write(folder, "crew/__init__.py", "")
    _write(folder, "crew/deep.py", AGENT.format(name="Deep"))
    assert load_agent("crew.deep:Deep").__name__ == "Deep"
    _write(folder, "some/where.py", AGENT.format(name="Where"))
    assert load_agent("some/where.py:Where").__name__ == "Where"
    assert load_agent(f"{folder}/some/where.py").__name__ == "Where"


def test_a_file_that_is_named_like_a_module_of_ours_takes_nobodys_place(folder: Path) -> None:
    import bus  # noqa: PLC0415 - the module that is not to be displaced

    _write(folder, "bus.py", AGENT.format(name="Mine"))
    assert load_agent("bus.py:Mine").__name__ == "Mine"
    assert sys.modules["bus"] is bus


def test_a_file_that_is_named_like_a_library_takes_nobodys_place(folder: Path) -> None:
    """A library that is imported later, such as by another library at the first task, must find itself."""
    (name,) = [name for name in ("this", "antigravity") if name not in sys.modules][:1]
    _write(folder, f"{name}.py", AGENT.format(name="Mine"))
    assert load_agent(f"{name}.py:Mine").__name__ == "Mine"
    assert name not in sys.modules


def test_two_agents_ask_for_a_choice(folder: Path) -> None:
    _write(folder, "both.py", AGENT.format(name="A") + AGENT.format(name="B"))
    assert _error("both") == "both defines 2 agents: use both:A or both:B"


def test_what_is_not_there_is_said(folder: Path) -> None:
    _write(folder, "empty.py", "x = 1\nclass Plain: ...\n")
    assert "no module 'nothing_here'" in _error("nothing_here:A")
    assert "no file gone.py: check the path" in _error("gone.py")
    assert "no file not-a-module: check the path" in _error("not-a-module")
    assert f"{folder} is a directory: name a file in it, as in {folder}/agent.py" in _error(str(folder))
    assert ". is a directory" in _error(".")
    assert "defines no agents: derive a class from agent_runtime.Agent" in _error("empty")
    assert "empty has no 'A'" in _error("empty:A")
    assert "empty:Plain is not an Agent class" in _error("empty:Plain")
    assert "write module:Class" in _error(":A")


def test_a_module_that_breaks_is_said_with_the_place(folder: Path) -> None:
    _write(folder, "broken.py", "import math\n\nmath.nothing()\n")
    assert "importing broken failed: AttributeError" in _error("broken:A")
    assert "(broken.py, line 3)" in _error("broken.py:A")


def test_a_file_that_is_not_python_is_said_with_the_place(folder: Path) -> None:
    _write(folder, "typo.py", "import math\n\nx = = 1\n")
    _write(folder, "uses_typo.py", "import typo\n")
    for target in ("typo", "typo.py:A", "uses_typo", "uses_typo.py"):
        text = _error(target)
        assert "SyntaxError: invalid syntax (typo.py, line 3): correct it" in text
        assert "frozen" not in text
    (folder / "binary.py").write_bytes(b"x = 1\0\n")
    assert "null bytes" in _error("binary.py:A")
    assert "frozen" not in _error("binary:A")


def test_an_agent_is_made_without_arguments(folder: Path) -> None:
    _write(folder, "model.py", AGENT.format(name="Model") + "    def __init__(self, path='x', *more, **options): ...\n")
    assert type(make_agent("model:Model")).__name__ == "Model"


def test_an_agent_that_needs_arguments_is_refused(folder: Path) -> None:
    _write(folder, "greedy.py", AGENT.format(name="Greedy") + "    def __init__(self, path, *, gpu): ...\n")
    with pytest.raises(AgentLoadError, match="its __init__ needs path, gpu: give them defaults"):
        make_agent("greedy:Greedy")


def test_an_abstract_agent_is_refused(folder: Path) -> None:
    text = AGENT.format(name="Half").replace("(Agent)", "(Agent, abc.ABC)")
    _write(folder, "half.py", f"import abc\n{text}    @abc.abstractmethod\n    def rest(self): ...\n")
    with pytest.raises(AgentLoadError, match="half:Half is abstract: define rest"):
        make_agent("half:Half")


def test_a_missing_dependency_is_not_taken_for_a_missing_agent(folder: Path) -> None:
    _write(folder, "needy.py", "import no_such_library_anywhere\n")
    assert "importing needy failed: ModuleNotFoundError: No module named 'no_such_library_anywhere'" in _error("needy")


def test_a_wrong_definition_is_said_with_its_remedy(folder: Path) -> None:
    _write(folder, "wrong.py", AGENT.format(name="Wrong").replace("-> int", ""))
    assert "Wrong.do: the return type is missing: write `-> YourModel`" in _error("wrong:Wrong")


def test_an_agent_that_can_do_nothing_is_refused(folder: Path) -> None:
    _write(folder, "idle.py", "from agent_runtime import Agent\nclass Idle(Agent): ...\n")
    assert "idle:Idle has no capabilities: mark at least one method with @capability" in _error("idle:Idle")
