"""How the tests are shared out among the workers of pytest-xdist: the long ones first, those marked `alone` last.

Many tests only wait, so that there is one worker more than processors. A test which measures time, or which takes all
processors itself, is marked `alone`: it begins when nobody else is at work any more. Tests of one `group` stay with one
worker: those whose module has a dear fixture, or which need what there is only one of.

Without workers (`pytest`, or `-n0`) all tests run one after the other. Groups are told to the scheduler in a file, for
it sees nothing of a test but its name, and the suffix by which `--dist loadgroup` tells it is lost with pytest 9.2.
"""

import json
import os
import tempfile
from pathlib import Path
from typing import Any, Final

import pytest
from xdist.scheduler.loadscope import LoadScopeScheduling
from xdist.workermanage import WorkerController

USUAL_PORTS: Final = pytest.mark.group("usual ports")
"""For tests of programs that take the ports which a user would have: one at a time."""

_ALONE: Final = "alone"


def number() -> int:
    """Return how many workers there are to be; 0 for none, where a server is given that they would have to share."""
    return 0 if os.environ.get("CALLBOARD_TEST_REDIS_URL") else (os.cpu_count() or 1) + 1


def prepare(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put long tests first, which are those with a timeout of their own; a worker tells the groups of its tests."""
    items.sort(key=lambda item: -max((float(mark.args[0]) for mark in item.iter_markers("timeout")), default=0.0))
    told: dict[str, Any] = getattr(config, "workerinput", {})
    if told:
        groups = {item.nodeid: group for item in items if (group := _group(item))}
        mine = _file(f"{told['testrunuid']}-{told['workerid']}")
        mine.write_text(json.dumps(groups))
        mine.replace(_file(told["testrunuid"]))


def _group(item: pytest.Item) -> str | None:
    if item.get_closest_marker(_ALONE):
        return _ALONE
    mark = item.get_closest_marker("group")
    return None if mark is None else str(mark.args[0])


def _file(run: str) -> Path:
    return Path(tempfile.gettempdir()) / f"callboard-tests-{run}.json"


class AloneLast(LoadScopeScheduling):
    """Gives out the groups, and each other test by itself; what is `alone` comes when all else has ended.

    A worker begins its last test when it knows the next one, or that there is none. So all but one are told that there
    is none as soon as only that group is left, and the one that is left is given it once they have ended all of theirs.
    """

    def __init__(self, config: pytest.Config, log: Any) -> None:
        super().__init__(config, log)
        self._groups: dict[str, str] = {}

    def schedule(self) -> None:
        """Give out the first tests."""
        if self.collection is None:
            file = _file(self.nodes[0].workerinput["testrunuid"])
            if file.exists():  # not if the workers could not collect: what for, they say themselves
                self._groups = json.loads(file.read_text())
                file.unlink()
        super().schedule()

    def mark_test_complete(self, node: WorkerController, item_index: int, duration: float = 0) -> None:
        """Note the end of a test; it may be the one that the last group has waited for."""
        super().mark_test_complete(node, item_index, duration)
        if _ALONE in self.workqueue:
            for other in self.nodes:
                self._reschedule(other)

    def _split_scope(self, nodeid: str) -> str:
        return self._groups.get(nodeid, nodeid)

    def _assign_work_unit(self, node: WorkerController) -> None:
        if not self.workqueue:
            return
        if _ALONE in self.workqueue:
            self.workqueue.move_to_end(_ALONE)
        if next(iter(self.workqueue)) != _ALONE:
            super()._assign_work_unit(node)
            return
        others = [other for other in self.nodes if other is not node]
        if not all(other.shutting_down for other in others):
            node.shutdown()
        elif not any(self._pending_of(self.assigned_work[other]) for other in others):
            super()._assign_work_unit(node)


def scheduler(config: pytest.Config, log: Any) -> AloneLast | None:
    """Return the scheduler of this run, unless the command line asks for another way to share out tests."""
    return AloneLast(config, log) if config.getvalue("dist") == "loadscope" else None
