"""The wheel has its core compiled where that is asked for, by ``CALLBOARD_COMPILE=1 pip install .``.

The scheduler's core is Python without input and output, typed throughout: mypyc makes C of it, which takes two minutes
and needs a C compiler. The modules go into the wheel beside their sources, and Python prefers them. Nothing else
changes, and without that variable, and in editable installs, nothing is compiled.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ASKED: Final = os.environ.get("CALLBOARD_COMPILE") == "1"
CORE: Final = "dispatcher/core"
GROUP: Final = "callboard_core"
"""The name of the one library that all compiled modules are parts of, before ``__mypyc``."""
_SETUP: Final = """
from setuptools import setup
from mypyc.build import mypycify
setup(name={group!r}, packages=[], ext_modules=mypycify({files!r}, group_name={group!r}))
"""
_TYPES: Final = """
[mypy]
explicit_package_bases = True
ignore_missing_imports = True
plugins = pydantic.mypy
[pydantic-mypy]
init_typed = True
"""


class CompiledCore(BuildHookInterface):  # type: ignore[type-arg]
    """Adds the compiled modules to a wheel."""

    def dependencies(self) -> list[str]:
        """Return what compiling needs: types are read, so what the sources import is needed, too."""
        if not ASKED:
            return []
        project = tomllib.loads((Path(self.root) / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        compiler = [one for one in project["optional-dependencies"]["dev"] if one.startswith("mypy")]
        return ["setuptools>=77", *compiler, *project["dependencies"]]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, unless the wheel is one that points to the sources. An error of the compiler ends the build."""
        if not ASKED or version == "editable":
            return
        self._folder = Path(tempfile.mkdtemp(prefix="callboard-compiled-"))
        for path in compiled(Path(self.root), self._folder):
            build_data["force_include"][str(path)] = path.relative_to(self._folder).as_posix()
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002 - hatch's
        """Remove what was compiled: it is in the wheel now."""
        if ASKED and version != "editable":
            shutil.rmtree(self._folder)


def compiled(root: Path, folder: Path) -> list[Path]:
    """Compile a copy of the core of the checkout `root` in `folder`; return the libraries, each where it belongs.

    Takes two minutes. Raises `subprocess.CalledProcessError` if a type or the C compiler does not fit.
    """
    for package in ("bus", "dispatcher"):
        shutil.copytree(root / package, folder / package, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    sources = sorted((folder / CORE).glob("[!_]*.py"))
    files = [source.relative_to(folder).as_posix() for source in sources]
    (folder / "setup.py").write_text(_SETUP.format(group=GROUP, files=files))
    (folder / "mypy.ini").write_text(_TYPES)
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    subprocess.run(command, cwd=folder, check=True, env=os.environ | {"PYTHONPATH": str(folder)})  # noqa: S603 - our own
    made = (path for path in folder.rglob("*") if path.suffix in {".so", ".pyd"})
    return [path for path in made if path.relative_to(folder).parts[0] != "build"]
