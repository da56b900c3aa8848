"""Finds and makes the agent that a command line names: `package.module:Class` or `path/to/file.py:Class`.

The working directory comes *last* on the path of modules: an author's `metrics.py` or `bus.py` must not take the place
of a part of Callboard. A module of theirs that is hidden so can be named by its path.
"""

import importlib
import importlib.util
import inspect
import sys
import traceback
from pathlib import Path
from types import ModuleType

from agent_runtime.agent import Agent
from agent_runtime.errors import AgentDefinitionError, AgentLoadError


def load_agent(target: str) -> type[Agent]:
    """Import what `target` names and return the agent class.

    The class may be left out if the module defines exactly one. Raises `AgentLoadError`, whose text is one line, for
    whatever is in the way, an exception in the author's module included (it is chained).
    """
    where, _, name = target.partition(":") if not _is_windows_path(target) else (target, "", "")
    if not where:
        raise AgentLoadError(f"{target!r} names no module: write module:Class, or path/to/file.py:Class")
    path = where.endswith(".py") or "/" in where or not all(part.isidentifier() for part in where.split("."))
    module = _from_file(Path(where)) if path else _from_path_of_modules(where)
    return _named(module, where, name) if name else _only(module, where)


def make_agent(target: str) -> Agent:
    """Return an object of the class that `target` names.

    Raises `AgentLoadError` if it cannot be loaded, or if nobody could make one: it would fail at each start, for ever.
    What its `__init__` raises is passed on, since the next start may have better luck.
    """
    found = load_agent(target)
    missing = sorted(getattr(found, "__abstractmethods__", ()))
    if missing:
        raise AgentLoadError(f"{target} is abstract: define {', '.join(missing)}, or name a class that does")
    needed = [
        parameter.name
        for parameter in inspect.signature(found).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if needed:
        raise AgentLoadError(
            f"{target} is made without arguments, and its __init__ needs {', '.join(needed)}: give them defaults, or "
            "read them from the environment in on_start"
        )
    return found()


def _is_windows_path(target: str) -> bool:
    return len(target) > 2 and target[1] == ":" and target[2] in "\\/"  # noqa: PLR2004 - the length of `C:\`


def _from_path_of_modules(name: str) -> ModuleType:
    cwd = str(Path.cwd())
    if cwd not in sys.path:
        sys.path.append(cwd)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise AgentLoadError(
                f"no module {name!r} here or installed: go to its directory, or give the path of its file"
            ) from None
        raise _broken(name, error) from error
    except Exception as error:
        raise _broken(name, error) from error


def _from_file(path: Path) -> ModuleType:
    file = path.resolve()
    if file.is_dir():
        raise AgentLoadError(f"{path} is a directory: name a file in it, as in {path / 'agent.py'}")
    if not file.is_file():
        raise AgentLoadError(f"no file {path}: check the path")
    folder = str(file.parent)
    if folder not in sys.path:
        sys.path.append(folder)
    name = file.stem if _is_free(file) else f"_callboard_agent_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise AgentLoadError(f"{path} is not a Python file: give the path of a .py file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # annotations are looked up there, and so does pickle
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise _broken(str(path), error) from error
    return module


def _is_free(file: Path) -> bool:
    """Tell whether the name of a file may be its module's: not if that is another's, also one imported only later."""
    if not file.stem.isidentifier() or file.stem in sys.modules:
        return False
    spec = importlib.util.find_spec(file.stem)
    return spec is None or spec.origin == str(file)


def _broken(what: str, error: Exception) -> AgentLoadError:
    if isinstance(error, AgentDefinitionError):
        return AgentLoadError(str(error))
    text = " ".join((error.msg if isinstance(error, SyntaxError) else str(error)).split())
    place = _place(error)
    return AgentLoadError(f"importing {what} failed: {type(error).__name__}: {text}{place}: correct it and try again")


def _place(error: Exception) -> str:
    """Return the file and line that are to be corrected, if that is known: never one of Python's importing."""
    if isinstance(error, SyntaxError) and error.filename is not None:
        return f" ({Path(error.filename).name}, line {error.lineno})"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<frozen ") and frame.filename not in (__file__, importlib.__file__)
    ]
    return f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""


def _named(module: ModuleType, where: str, name: str) -> type[Agent]:
    found = getattr(module, name, None)
    if found is None:
        raise AgentLoadError(f"{where} has no {name!r}: {_choice(module, where)}")
    if not (inspect.isclass(found) and issubclass(found, Agent)):
        raise AgentLoadError(f"{where}:{name} is not an Agent class: {_choice(module, where)}")
    return _usable(found, f"{where}:{name}")


def _only(module: ModuleType, where: str) -> type[Agent]:
    found = _defined(module)
    if len(found) != 1:
        raise AgentLoadError(f"{where} defines {len(found) or 'no'} agents: {_choice(module, where)}")
    return _usable(found[0], where)


def _usable(found: type[Agent], target: str) -> type[Agent]:
    if not found.capabilities:
        raise AgentLoadError(f'{target} has no capabilities: mark at least one method with @capability("name")')
    return found


def _choice(module: ModuleType, where: str) -> str:
    names = [cls.__name__ for cls in _defined(module)]
    if names:
        return "use " + " or ".join(f"{where}:{name}" for name in names)
    return f"derive a class from agent_runtime.Agent in {module.__file__ or where}"


def _defined(module: ModuleType) -> list[type[Agent]]:
    return [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Agent) and value.__module__ == module.__name__
    ]
