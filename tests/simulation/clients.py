"""Clients of a simulated pool: they submit, once or twice, and cancel what they have submitted; and schedules."""

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from bus.ids import DEFAULT_POOL, scheduled_task_id
from bus.messages import CancelTasks, Command, ScheduleProgress, TaskHeader
from bus.states import TaskPriority
from dispatcher.core.decisions import NoteKind
from dispatcher.core.events import Commanded, Submitted
from tests.simulation.limits import SHARED

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

UNTIL_MS: Final = 30_000
"""Clients submit, and schedules recur, for so long."""
SCHEDULES: Final[dict[str, dict[str, Any]]] = {
    "all": {"every": 1.5, "overlap": "queue", "missed": "all"},
    "skip": {"every": 2, "overlap": "skip"},
    "replace": {"every": 3, "overlap": "replace", "missed": "skip"},
}
"""What recurs; of the first no instant may be lost."""


RETRIES: Final[tuple[dict[str, Any], ...]] = (
    {"base": 0.0},
    {"base": 0.5, "factor": 3, "cap": 2, "jitter": False},
    {"never_for": ["ValueError"]},
)
"""How tasks are to be tried again that say it themselves."""


class Clients:
    """All clients together."""

    def __init__(self, world: "Simulation", tasks: int) -> None:
        self.world = world
        rng = world.rng
        self._schedules: dict[str, int] = {}
        """Of each schedule, until when it recurs."""
        self.deleted: set[str] = set()
        """Schedules that an operator deletes; a message that comes twice may put one again."""
        if rng.random() < 0.4:
            for name in rng.sample(sorted(SCHEDULES), rng.randrange(1, 3)):
                world.at(rng.randrange(3_000), partial(self._put, name))
        within = rng.choice((UNTIL_MS, UNTIL_MS, 300))  # or all at once
        for number in range(tasks):
            world.at(rng.randrange(within), partial(self._submit, number))

    # --- submitting

    def _submit(self, number: int) -> None:
        world, rng = self.world, self.world.rng
        task_id = f"{DEFAULT_POOL}.t{number:03d}"
        rate, concurrency = world.rates.limit(), {"key": SHARED, "concurrency": 2}
        header = TaskHeader.model_validate(
            {
                "id": task_id,
                "capability": rng.choice(("do", "do", "do", "do", "make")),
                "priority": rng.choice(list(TaskPriority)),
                "max_attempts": rng.choice((1, 2, 3, 8)),
                "retry": rng.choice((None, None, *RETRIES)),
                "run_timeout": rng.choice((None, None, 4)),
                "progress_timeout": rng.choice((None, None, 3)),
                "queue_timeout": rng.choice((None, None, 2, 40)),
                "fairness_key": rng.choice((None, "k", "batch")),
                "limits": rng.choice(([], [], [concurrency], [rate], [rate, concurrency])),
                "slots": rng.choice((1, 1, 1, 2, 3)),
                "resources": rng.choice(({}, {}, {}, {"gpu": 1}, {"gpu": 1.5})),
                "requires": rng.choice(([], [], [], ["zone == eu"])),
                "delay": rng.choice((0, 0, 0, 5)),
                "estimated_duration": rng.choice((None, None, 0.001)),
                "sticky": rng.choice((None, None, "s1", "s2")),
                "fail_fast": rng.random() < 0.1,
                "reply_to": rng.choice((None, "client")),
            }
        )
        self._send(task_id, header)
        if rng.random() < 0.15:
            later = rng.randrange(10_000)
            for _ in range(2):  # impatient
                grace = rng.choice((None, 0.0, 1.0, 4.0))
                world.at(later, partial(self._cancel, task_id, grace))

    def submit_child(self, parent: str, attempt: int, depth: int, number: int) -> str:
        """Submit a child of an attempt; the next attempt that asks for the same asks for this one."""
        task_id = f"{parent}-{number}"
        self.world.parents[task_id] = parent
        timeout = self.world.rng.choice((None, 4))
        header = TaskHeader(
            id=task_id, capability="do", parent=parent, parent_attempt=attempt, depth=depth, run_timeout=timeout
        )
        self._send(task_id, header, after=self.world.rng.choice((0, 0, 30, 2_000)))
        return task_id

    def _send(self, task_id: str, header: TaskHeader, after: int = 0) -> None:
        """Submit a task; streams have no order among each other, so that the end of a parent may be read before."""
        world, rng = self.world, self.world.rng
        world.submitted.add(task_id)
        event = Submitted(task_id, header, header.model_dump_json().encode(), world.now)
        world.at(after, lambda: world.send(event))
        if rng.random() < 0.2:  # the reply was lost, and the client sends it again
            later = after + rng.choice((2, 30, 400, 20_000))
            world.at(later, lambda: world.send(event))
            if rng.random() < 0.3:  # and gives up
                world.at(later + rng.choice((1, 20)), partial(self._cancel, task_id, None))

    def _cancel(self, task_id: str, grace: float | None) -> None:
        command = CancelTasks(task_ids=(task_id,), reason="why not", grace=grace)
        self.world.send(Commanded(command, self.world.now))

    # --- schedules

    def _put(self, name: str) -> None:
        until = self._schedules[name] = self.world.now - self.world.now % 1_000 + UNTIL_MS
        task = {"capability": "do", "max_attempts": 8}
        spec = {"id": name, "until": until, "task": task, **SCHEDULES[name]}
        command = Command.model_validate({"type": "put_schedule", "schedule": spec}).root
        self.world.send(Commanded(command, self.world.now))

    def _progress(self) -> dict[str, ScheduleProgress]:
        """Return how far each schedule is."""
        notes = self.world.ledger.notes_of(NoteKind.SCHEDULE_PROGRESS)
        return {name: ScheduleProgress.model_validate_json(value) for name, value in notes.items()}

    def schedules_go_on(self) -> bool:
        """Tell whether any is due still."""
        return bool(self._schedules) and any(one.next_due is not None for one in self._progress().values())

    def check_schedules(self) -> None:
        """Fail if a task of a schedule was lost, or made twice; whoever led."""
        counts = self.world.counts
        triggered = self.world.ledger.triggered
        assert len(set(triggered)) == len(triggered), "what was asked for was made twice"
        counts["triggered"] += len(triggered)
        for name, progress in self._progress().items():
            due = self.world.ledger.fired.get(name, [])
            fired = len(due) if name in self.deleted else progress.fired
            assert len(set(due)) == len(due) == fired, f"schedule {name}: {progress} and {due}"
            if name == "all":
                row = list(range(progress.anchor + 1_500, self._schedules[name] + 1, 1_500))
                assert sorted(due) == row, f"schedule {name}: not each of {row}: {sorted(due)}"
            known = {scheduled_task_id(DEFAULT_POOL, name, at) for at in due}
            assert known <= self.world.ledger.ends.keys() | self.world.ledger.purged
            counts["fired"] += progress.fired
            counts["skipped"] += progress.skipped
            counts["replaced"] += progress.replaced
