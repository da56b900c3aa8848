"""A program of the next release: `python -m tests.support.other_version MODULE ARGUMENT…` runs a module as it would be.

Its messages are of the version `CALLBOARD_TEST_WRITES` and it reads `CALLBOARD_TEST_READS`; every message has a field
more, `hint`, that this release does not know. Everything else is this checkout's.
"""

import os
import runpy
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import spec_from_file_location
from types import CodeType, ModuleType
from typing import Final

WRITES: Final = "CALLBOARD_TEST_WRITES"
READS: Final = "CALLBOARD_TEST_READS"
_NAME: Final = "bus.messages.message"


class _Loader(SourceFileLoader):
    """Loads the module that says which versions there are, with others."""

    def get_data(self, path: str) -> bytes:
        """Return the changed source."""
        source = super().get_data(path)
        for line, variable in ((b"VERSION: Final = ", WRITES), (b"READS: Final = ", READS)):
            assert source.count(line + b"1\n") == 1, "the module that says the versions has changed"
            source = source.replace(line + b"1\n", line + os.environ[variable].encode() + b"\n")
        return (
            source + b'\n    hint: str = Field("of the next release", description="What this release does not know.")\n'
        )

    def get_code(self, fullname: str) -> CodeType | None:
        """Compile the changed source; no cache is read or written."""
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _NAME:
            return None
        found = PathFinder.find_spec(fullname, path, target)
        assert found is not None
        assert found.origin is not None
        return spec_from_file_location(fullname, found.origin, loader=_Loader(fullname, found.origin))


if __name__ == "__main__":
    sys.meta_path.insert(0, _Finder())
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
