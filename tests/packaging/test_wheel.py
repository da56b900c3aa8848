"""The wheel owns general names: exactly the five that are announced, with all that belongs to them."""

import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_PACKAGES = {"agent_runtime", "bus", "callboard", "dispatcher", "metrics"}


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    for tool in ("pip", "hatchling"):
        if importlib.util.find_spec(tool) is None:
            pytest.skip(f"{tool} is not installed, so no wheel can be built (`make dev` installs it)")
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(_ROOT)], check=True, timeout=50)
    (wheel,) = folder.glob("callboard-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_the_wheel_owns_exactly_the_announced_names(wheel_names: list[str]) -> None:
    top_level = {name.split("/")[0] for name in wheel_names}
    assert {name for name in top_level if not name.endswith(".dist-info")} == _PACKAGES


def test_the_wheel_holds_every_file_of_its_packages(wheel_names: list[str]) -> None:
    in_the_tree = {
        path.relative_to(_ROOT).as_posix()
        for package in _PACKAGES
        for path in (_ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert in_the_tree == {name for name in wheel_names if name.split("/")[0] in _PACKAGES}


def test_every_package_of_the_wheel_is_typed(wheel_names: list[str]) -> None:
    assert {f"{package}/py.typed" for package in _PACKAGES} <= set(wheel_names)
