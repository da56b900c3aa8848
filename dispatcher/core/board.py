"""What one pass of the scheduler works on: the state, and the notes of what has changed.

`Board.close` turns the notes into decisions: one `TaskChange` per touched task, from the guard the ledger has to the
present one, however many transitions lie between.
"""

from heapq import heappush
from random import Random

from bus.messages import Control
from bus.states import AgentStatus, agent_may_become
from dispatcher.core.config import SchedulerConfig
from dispatcher.core.decisions import (
    AgentChange,
    AgentTransition,
    Decisions,
    Handover,
    Instruct,
    TaskChange,
    TaskTransition,
)
from dispatcher.core.fleet import Fleet, RequirementClass
from dispatcher.core.model import AgentState, TaskState
from dispatcher.core.record import agent_record, encode_run, place_of
from dispatcher.core.timers import Timers


class Board:
    """State of one pool, and the draft of the pass under way."""

    def __init__(self, config: SchedulerConfig, seed: int) -> None:
        self.config = config
        self.rng = Random(seed)
        self.now = 0
        self.horizon = 0
        self.tasks: dict[str, TaskState] = {}
        """Live tasks, and until the pass is closed those that have ended in it: see `live`."""
        self.fleet = Fleet(config)
        self.clock_timers = Timers()
        self.horizon_timers = Timers()
        self.tombstones: dict[str, tuple[str, str]] = {}
        """Cancels that found no task, by task id: (reason, by)."""
        self.ready: list[tuple[int, int, RequirementClass]] = []
        """Heap of the classes whose head may be placed, by the head's score."""
        self.blocked: dict[RequirementClass, None] = {}
        """Classes whose head found no agent with room; woken when one of their agents gains some."""
        self._ticket = 0
        self.draft = Decisions()
        self._touched: dict[str, TaskState] = {}
        self._touched_agents: dict[str, AgentState | None] = {}

    def enqueue(self, task: TaskState) -> None:
        """Let a PENDING task stand in its class's line, and its class among those that want an agent."""
        self._ticket += 1
        cls = self.fleet.class_of(task.requirement)
        cls.line.push(task, self._ticket)
        self.offer(cls, task.score)

    def offer(self, cls: RequirementClass, score: int) -> None:
        """Let `cls` compete for the next placement with a head of this `score`, unless it waits for room."""
        if cls in self.blocked or (cls.queued_score is not None and cls.queued_score <= score):
            return
        cls.queued_score = score
        heappush(self.ready, (score, cls.seq, cls))

    def live(self, task_id: str) -> TaskState | None:
        """Return a task that has not ended, not even in this pass; None otherwise."""
        task = self.tasks.get(task_id)
        return None if task is None or task.status.terminal else task

    def touch(self, task: TaskState) -> None:
        """Note that the record of `task` is to be written."""
        self._touched[task.id] = task

    def touch_agent(self, agent: AgentState) -> None:
        """Note that the record of `agent` is to be written."""
        self._touched_agents[agent.id] = agent

    def forget_agent(self, agent: AgentState) -> None:
        """Remove an agent without tasks from the fleet and the ledger."""
        self.fleet.remove(agent)
        self._touched_agents[agent.id] = None

    def drop(self, task: TaskState) -> None:
        """Forget a task that the ledger had already; nothing is written."""
        self.tasks.pop(task.id, None)
        self._touched.pop(task.id, None)

    def set_agent(self, agent: AgentState, status: AgentStatus, reason: str | None = None) -> None:
        """Change the agent's status by the table; the only place that does."""
        if status is agent.status and reason == agent.reason:
            return
        assert agent_may_become(agent.status, status), f"{agent.id}: {agent.status} -> {status}"  # noqa: S101
        tell = status is not agent.status and {status, agent.status} != {
            AgentStatus.IDLE,
            AgentStatus.RUNNING,
        }
        agent.status, agent.reason = status, reason
        if tell:
            self.touch_agent(agent)
            self.announce(agent)

    def announce(self, agent: AgentState) -> None:
        """Tell the events of the agent's present status and health."""
        self.draft.agent_transitions.append(
            AgentTransition(agent.id, agent.status, agent.health, agent.reason),
        )

    def instruct(self, agent_id: str, message: Control) -> None:
        """Send a message to an agent's control stream."""
        self.draft.instructions.append(Instruct(agent_id, message))

    def tell(self, task: TaskState, *, reason: str | None = None) -> None:
        """Tell the events of the task's present status."""
        self.draft.transitions.append(
            TaskTransition(
                task.id,
                task.status,
                task.attempt,
                task.agent.id if task.agent else None,
                reason,
                task.progress,
                task.note,
            ),
        )

    def close(self) -> Decisions:
        """End the pass: return its decisions and start a new draft."""
        draft, self.draft = self.draft, Decisions()
        for task in self._touched.values():
            draft.changes.append(self._change(task))
        draft.agents = [
            AgentChange(agent_id, None if agent is None else agent_record(agent))
            for agent_id, agent in self._touched_agents.items()
        ]
        self._touched, self._touched_agents = {}, {}
        return draft

    def _change(self, task: TaskState) -> TaskChange:
        before, after = task.stored, task.guard
        agent, handover, release = task.agent, None, None
        old = before.split("/") if before else None
        if old is not None and old[2] and old[0] == "ASSIGNED" and before != after:
            release = old[2]
        if agent is not None and (old is None or old[1] != str(task.attempt)) and not task.status.terminal:
            handover = Handover(agent.id, task.session, task.attempt, task.score, self.now)
        place, score = place_of(task, self.now)
        change = TaskChange(
            task_id=task.id,
            before=before,
            after=after,
            place=place,
            place_score=score,
            run=encode_run(task),
            spec=task.spec,
            output=task.output,
            release=release,
            handover=handover,
        )
        task.stored, task.spec, task.output = after, None, None
        if task.status.terminal:
            self.tasks.pop(task.id, None)
        return change
