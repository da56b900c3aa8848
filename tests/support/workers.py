"""How the tests are shared out among the workers of pytest-xdist: the long ones first, those marked `alone` last.

Many tests only wait, so that there is one worker more than processors. A test which measures time, or which takes all
processors itself, is marked `alone`: it begins when nobody else is at work any more. Tests of a module whose fixtures
are dear stay with one worker by `pytest.mark.xdist_group`.

Without workers (`pytest`, or `-n0`) all tests run one after the other, in the same order as ever.
"""

import os
from collections.abc import Iterable
from typing import Any, Final

import pytest
from xdist.scheduler.loadgroup import LoadGroupScheduling
from xdist.workermanage import WorkerController

USUAL_PORTS: Final = pytest.mark.xdist_group("usual ports")
"""For tests of programs that take the ports which a user would have: one at a time."""

_ALONE: Final = "alone"


def number() -> int:
    """Return how many workers there are to be; 0 for none, where a server is given that they would have to share."""
    return 0 if os.environ.get("CALLBOARD_TEST_REDIS_URL") else (os.cpu_count() or 1) + 1


def prepare(items: list[pytest.Item]) -> None:
    """Put long tests first, which are those with a timeout of their own, and all that are `alone` into one group."""
    for item in items:
        if item.get_closest_marker(_ALONE):
            item.add_marker(pytest.mark.xdist_group(_ALONE))
    items.sort(key=lambda item: -_timeout(item.iter_markers("timeout")))


def _timeout(markers: Iterable[pytest.Mark]) -> float:
    return max((float(marker.args[0]) for marker in markers), default=0.0)


class AloneLast(LoadGroupScheduling):
    """Gives out groups as `--dist loadgroup` does, but that of the tests which are `alone` when all else has ended.

    A worker begins its last test when it knows the next one, or that there is none. So all but one are told that there
    is none as soon as only that group is left, and the one that is left is given it once they have ended all of theirs.
    """

    def mark_test_complete(self, node: WorkerController, item_index: int, duration: float = 0) -> None:
        """Note the end of a test; it may be the one that the last group has waited for."""
        super().mark_test_complete(node, item_index, duration)
        if _ALONE in self.workqueue:
            for other in self.nodes:
                self._reschedule(other)

    def _assign_work_unit(self, node: WorkerController) -> None:
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
    return AloneLast(config, log) if config.getvalue("dist") == "loadgroup" else None
