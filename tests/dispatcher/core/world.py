"""A small world for the scheduler: time, tasks and agents as plain values, and a ledger that checks every guard."""

from typing import Any

from bus.filters import TaskFilter
from bus.ids import TaskId
from bus.messages import (
    AgentCommand,
    CancelAttempt,
    CancelMatching,
    CancelTasks,
    CapabilitySpec,
    HandBack,
    Heartbeat,
    PurgeDead,
    RecallAttempt,
    Register,
    Report,
    ReprioritiseMatching,
    RequeueDead,
    TaskError,
    TaskHeader,
    TaskResult,
    TaskUpdate,
    TimeOutTask,
    Unregister,
    UpdateAgent,
    WatchTasks,
)
from bus.overrides import OfferChange
from bus.records import Guard, Run
from bus.states import AgentHealth, AgentStatus, TaskPriority, TaskStatus
from dispatcher.core.config import SchedulerConfig
from dispatcher.core.decisions import Decisions, Place
from dispatcher.core.events import (
    Beat,
    Commanded,
    Event,
    Horizon,
    OfDeadLetters,
    Reported,
    SignedIn,
    SignedOut,
    Submitted,
)
from dispatcher.core.model import AgentState
from dispatcher.core.record import StoredTask, agent_record, restore_agent
from dispatcher.core.scheduler import Scheduler

START = 1_800_000_000_000
Step = tuple[tuple[Event, ...], int]


def task_id(number: int) -> TaskId:
    """Return the id of task `number`."""
    return TaskId(f"default.{number:04d}")


class World:
    """One scheduler, its clock, and the guards that the ledger has. Every step is recorded in `steps`."""

    def __init__(self, *, seed: int = 1, **config: Any) -> None:
        self.config = SchedulerConfig(**config)
        self.scheduler = Scheduler(self.config, seed=seed)
        self.now = START
        self.stored: dict[str, str] = {}
        self.places: dict[str, Place] = {}
        self.runs: dict[str, bytes] = {}
        self.headers: dict[str, TaskHeader] = {}
        self.steps: list[Step] = []
        self.decided: list[Decisions] = []
        self._last = 0

    # --- time

    def step(self, *events: Event, after: int = 0) -> Decisions:
        """Let `after` ms pass, then let the scheduler take `events`; check its changes as the ledger would."""
        self.now += after
        self.steps.append((events, self.now))
        decisions = self.scheduler.step(events, self.now)
        self.decided.append(decisions)
        for change in decisions.changes:
            assert self.stored.get(change.task_id, "") == change.before, change
            self.stored[change.task_id] = change.after
            self.places[change.task_id] = change.place
            self.runs[change.task_id] = change.run
        for agent in decisions.agents:
            held = [
                one for one, guard in self.stored.items() if agent.record is None and f"/{agent.agent_id}/" in guard
            ]
            assert not held, f"{agent.agent_id} is forgotten and holds {held}"
        return decisions

    def pass_time(self, ms: int) -> None:
        """Let time pass before the next event is made."""
        self.now += ms

    def take_over(self, *, agents: bool = True) -> None:
        """Let a new leader go on, that knows only what is stored; without `agents` their records are lost."""
        known = self.scheduler.board.fleet.agents.values() if agents else ()
        fleet = [restore_agent(agent_record(agent), self.now) for agent in known]
        live = [stored for task in self.stored if (stored := self.record(task)) and not stored.guard.status.terminal]
        self.scheduler = Scheduler(self.config, seed=2)
        self.scheduler.load(fleet, live, self.now)

    def horizon(self, *, after: int = 0) -> Decisions:
        """Let time pass and let the scheduler know that all that agents wrote until now is read."""
        return self.step(Horizon(self.now + after), after=after)

    # --- events

    def task(
        self,
        capability: str = "do",
        *,
        priority: TaskPriority = TaskPriority.MEDIUM,
        number: int | None = None,
        at: int | None = None,
        **fields: Any,
    ) -> Submitted:
        """Make a submission; ids count up."""
        self._last = self._last + 1 if number is None else number
        header = TaskHeader.model_validate({"capability": capability, "priority": priority, **fields})
        self.headers[task_id(self._last)] = header
        return Submitted(task_id(self._last), header, b'{"payload":1}', self.now if at is None else at)

    def sign_in(
        self, agent_id: str = "a", *capabilities: str | CapabilitySpec, session: str = "", **fields: Any
    ) -> SignedIn:
        """Make a registration of an agent, by default for the capability `do`, in one slot."""
        specs = [CapabilitySpec(name=c) if isinstance(c, str) else c for c in capabilities or ("do",)]
        message = Register(agent_id=agent_id, session=session or f"{agent_id}1", capabilities=tuple(specs), **fields)
        return SignedIn(message, self.now)

    def sign_out(self, agent_id: str = "a", *, forget: bool = False) -> SignedOut:
        """Make the farewell of an agent's present session."""
        message = Unregister(agent_id=agent_id, session=self.agent(agent_id).session, forget=forget)
        return SignedOut(message, self.now)

    def beat(self, agent_id: str = "a", *, session: str = "", holding: object = None, **fields: Any) -> Beat:
        """Make a heartbeat; by default the agent holds what it should."""
        agent = self.scheduler.board.fleet.agents.get(agent_id)
        if holding is None:
            holding = tuple((task.id, task.attempt) for task in agent.tasks.values()) if agent else ()
        session = session or (agent.session if agent else f"{agent_id}1")
        message = Heartbeat.model_validate(
            {"agent_id": agent_id, "session": session, "holding": holding, **fields},
        )
        return Beat(message, self.now)

    def started(self, number: int, **fields: Any) -> Reported:
        """Make the report that a task's present attempt runs."""
        return self._report(number, "updates", TaskUpdate, **fields)

    def ended(self, number: int, status: TaskStatus = TaskStatus.COMPLETED, **fields: Any) -> Reported:
        """Make the report of how a task's present attempt ended."""
        return self._report(number, "results", TaskResult, **{"output": 42, "status": status, **fields})

    def stopped(self, number: int, **fields: Any) -> Reported:
        """Make the report that a task's present attempt has stopped, as its cancel wanted."""
        return self.ended(number, TaskStatus.CANCELLED, **{"output": None, "duration": 0.0, **fields})

    def failed(self, number: int, **fields: Any) -> Reported:
        """Make the report that a task's present attempt raised."""
        error = TaskError(type="ValueError", message="no")
        return self.ended(number, TaskStatus.FAILED, **{"output": None, "error": error, **fields})

    def returned(self, number: int) -> Reported:
        """Make the report that hands a task back unstarted."""
        return self._report(number, "returned", HandBack)

    def _report(self, number: int, kind: str, model: Any, **fields: Any) -> Reported:
        guard = self.guard(number)
        item = model(task_id=task_id(number), **{"attempt": guard.attempt, **fields})
        return Reported(
            Report.model_validate({"agent_id": guard.agent_id, "session": guard.session, kind: (item,)}), self.now
        )

    def cancel(self, *numbers: int, reason: str = "", by: str = "somebody", **fields: Any) -> Commanded:
        """Make a client's wish to cancel."""
        ids = tuple(task_id(number) for number in numbers)
        return Commanded(CancelTasks(task_ids=ids, reason=reason, by=by, **fields), self.now)

    def time_out(self, number: int, **fields: Any) -> Commanded:
        """Make an operator's wish that a task's attempt be taken for overdue."""
        return Commanded(TimeOutTask(task_id=task_id(number), reply_to="operator", **fields), self.now)

    def requeue(self, *numbers: int, **fields: Any) -> OfDeadLetters:
        """Make an operator's wish to give dead letters a new life, with the records as they are."""
        ids = tuple(task_id(number) for number in numbers)
        return self._of_dead(RequeueDead(task_ids=ids, by="somebody", reply_to="operator", **fields))

    def purge(self, *numbers: int) -> OfDeadLetters:
        """Make an operator's wish to delete dead letters."""
        ids = tuple(task_id(number) for number in numbers)
        return self._of_dead(PurgeDead(task_ids=ids, by="somebody", reply_to="operator"))

    def _of_dead(self, command: RequeueDead | PurgeDead) -> OfDeadLetters:
        found = {one: stored for one in command.task_ids if (stored := self.record(one)) is not None}
        return OfDeadLetters(command, found, self.now)

    def record(self, one: str) -> StoredTask | None:
        """Return what the ledger has of a task."""
        guard = self.stored.get(one)
        if not guard:
            return None
        header = self.headers.get(one, TaskHeader(capability="_"))
        return StoredTask(one, Guard.parse(guard), header, Run.model_validate_json(self.runs[one]))

    def run(self, number: int) -> Run:
        """Return the changing part of a task's record."""
        return Run.model_validate_json(self.runs[task_id(number)])

    def cancel_matching(self, *, reason: str = "", **where: Any) -> Commanded:
        """Make an operator's wish to cancel all tasks of a kind."""
        return Commanded(CancelMatching(where=TaskFilter(**where), reason=reason, reply_to="operator"), self.now)

    def reprioritise_matching(self, priority: TaskPriority, **where: Any) -> Commanded:
        """Make an operator's wish to give all tasks of a kind another priority."""
        where_ = TaskFilter(**where)
        return Commanded(ReprioritiseMatching(where=where_, priority=priority, reply_to="operator"), self.now)

    def watch(self, number: int, client: str) -> Commanded:
        """Make a client's wish to be told."""
        return Commanded(WatchTasks(task_ids=(task_id(number),), reply_to=client), self.now)

    def command(self, kind: str, agent_id: str = "a", **fields: Any) -> Commanded:
        """Make an operator's command."""
        return Commanded(AgentCommand.model_validate({"type": kind, "agent_id": agent_id, **fields}), self.now)

    def update_agent(self, change: OfferChange, agent_id: str = "a") -> Commanded:
        """Make an operator's wish to change what an agent offers."""
        return Commanded(UpdateAgent(agent_id=agent_id, change=change), self.now)

    # --- what is so

    def guard(self, number: int) -> Guard:
        """Return what the ledger has of a task."""
        return Guard.parse(self.stored[task_id(number)])

    def status(self, number: int) -> TaskStatus:
        """Return the status that the ledger has of a task."""
        return self.guard(number).status

    def agent(self, agent_id: str = "a") -> AgentState:
        """Return an agent as the scheduler has it."""
        return self.scheduler.board.fleet.agents[agent_id]

    def standing(self, agent_id: str = "a") -> tuple[AgentStatus, AgentHealth]:
        """Return an agent's status and health."""
        agent = self.agent(agent_id)
        return agent.status, agent.health

    def why(self) -> str:
        """Return why tasks of the only class wait."""
        (reason,) = self.scheduler.why_waiting().values()
        return reason


def placed(decisions: Decisions) -> list[tuple[int, str]]:
    """Return (task, agent) of each placement, in order."""
    return [
        (int(t.task_id.removeprefix("default.")), t.agent_id or "")
        for t in decisions.transitions
        if t.status is TaskStatus.ASSIGNED and t.reason is None
    ]


def told(decisions: Decisions, agent_id: str = "a") -> list[str]:
    """Return the kinds of messages to an agent."""
    return [i.message.root.type for i in decisions.instructions if i.agent_id == agent_id]


def stops(decisions: Decisions) -> list[tuple[str, str, int]]:
    """Return (agent, task, attempt) of every attempt that is to be stopped."""
    return [
        (i.agent_id, i.message.root.task_id, i.message.root.attempt)
        for i in decisions.instructions
        if isinstance(i.message.root, CancelAttempt)
    ]


def recalls(decisions: Decisions) -> list[tuple[str, str]]:
    """Return (agent, task) of every attempt that is asked back."""
    return [
        (i.agent_id, i.message.root.task_id)
        for i in decisions.instructions
        if isinstance(i.message.root, RecallAttempt)
    ]
