"""Submitting tasks, looking at them."""

from typing import Annotated, Final

from fastapi import APIRouter, Header, Query, Response

from bus.errors import QueueFullError  # noqa: TC001 - FastAPI reads the names of this module
from bus.explanations import Explanation
from bus.records import TaskCreate, TaskInDB, TaskQueueStatus
from bus.submission import Submission, in_calls, send, submission_of
from bus.task_pages import TaskPages
from dispatcher.api.admission import Reads, ReadsTask, Submits, TaskIdPath, Visit
from dispatcher.api.filtering import Where
from dispatcher.api.json_bodies import JsonRoute
from dispatcher.api.looking import record_of_task
from dispatcher.api.problems import (
    BUSY,
    INVALID_CURSOR,
    NO_LEADER,
    NOT_READ_YET,
    QUEUE_FULL,
    UNKNOWN_POOL,
    UNKNOWN_TASK,
    UNREADABLE_TASK,
    declared,
    field_problem,
)
from dispatcher.api.schemas.tasks import (
    DispatchedTask,
    NewTask,
    TaskDispatchRequest,
    TaskDispatchResponse,
    TaskList,
    Timeline,
)
from dispatcher.api.timeline import timeline_of

router: Final = APIRouter(prefix="/tasks", tags=["tasks"], route_class=JsonRoute)

OF_TASK: Final = (UNKNOWN_TASK, UNKNOWN_POOL, NOT_READ_YET, UNREADABLE_TASK)

Key = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=200,
        description="Submit once: a second request with this key stores nothing and answers the same ids. Becomes the "
        "key of a task that has none of its own; in a batch, with `#` and the task's place from 0.",
    ),
]


@router.post(
    "/dispatch",
    status_code=202,
    summary="Submit tasks",
    responses=declared(UNKNOWN_POOL, QUEUE_FULL),
    response_model=TaskDispatchResponse,
    response_description="All of them are stored, but those that there was no room for.",
)
async def dispatch(visit: Submits, asked: TaskDispatchRequest, idempotency_key: Key = None) -> Response:
    """Submit one task, or up to a thousand at once.

    The answer is the receipt: they are stored, and will be done whatever becomes of this process. If the server stops
    to answer in the midst of a batch, some may be stored; with keys the whole batch may be sent again.
    """
    tasks = _keyed(asked, idempotency_key)
    made = [submission_of(task, visit.names.pool, None)[1] for task in tasks]
    known, refused = await _store(visit, made)
    headers = {"Location": f"/api/v1/tasks/{made[0].task_id}"} if len(made) == 1 else {}
    told = tuple(
        DispatchedTask.model_construct(id=one.task_id, known=one.task_id in known, refused=one.task_id in refused)
        for one in made
    )
    body = TaskDispatchResponse.model_construct(pool=visit.names.pool, tasks=told).model_dump_json()
    return Response(body, 202, headers, "application/json")


def _keyed(asked: TaskDispatchRequest, key: str | None) -> list[TaskCreate]:
    if key is None:
        return list(asked.tasks)
    if isinstance(asked.root, NewTask):
        if asked.root.key not in (None, key):
            raise field_problem("body.key", "it differs from the Idempotency-Key: leave one of them out")
        return [asked.root.model_copy(update={"key": key})]
    return [
        task if task.key is not None else task.model_copy(update={"key": f"{key}#{place}"})
        for place, task in enumerate(asked.tasks)
    ]


async def _store(visit: Visit, made: list[Submission]) -> tuple[set[str], set[str]]:
    """Store all; return which were known, and which there was no room for. Raises if there was none for any."""
    site = visit.site
    if len(made) == 1:
        return ({made[0].task_id} if await site.submitter.submit(visit.names, made[0]) else set()), set()
    known, refused = set[str](), set[str]()
    first: QueueFullError | None = None
    for part in in_calls(made):
        sent = await send(site.redis, site.link.url, visit.names, part)
        known |= sent.known
        for place, refusal in sent.refused.items():
            refused.add(part[place].task_id)
            first = first or refusal.error(visit.names, part[place])
    if first is not None and len(refused) == len(made):
        raise first
    return known, refused


@router.get("", summary="List tasks", response_model=TaskList, responses=declared(UNKNOWN_POOL, INVALID_CURSOR))
async def list_tasks(
    visit: Reads,
    where: Where,
    limit: Annotated[int, Query(ge=1, le=500, description="Most tasks of a page.")] = 100,
    cursor: Annotated[str | None, Query(max_length=1000, description="`next` of the page before.")] = None,
) -> Response:
    """List the tasks of a pool: delayed ones, waiting ones in their order, those in agents' hands, ended ones.

    A task that stays as it is appears exactly once however many others come and go meanwhile, one that moves on at
    least once. A page looks at 500 records at most, so with filters other than `status` it may be short: go on until
    `next` is null.
    """
    page = await TaskPages(visit.site.redis, visit.names).page(where, cursor, limit=limit)
    body = TaskList.model_construct(tasks=tuple(page.tasks), next=page.cursor).model_dump_json()
    return Response(body, media_type="application/json")  # FastAPI would validate once more what is valid


@router.post("/plan", summary="Ask what would become of a task", responses=declared(UNKNOWN_POOL, NO_LEADER, BUSY))
async def plan(visit: Reads, task: NewTask) -> Explanation:
    """Ask the leader what would become of such a task now: who could do it, what is missing. Nothing is submitted."""
    async with visit.site.question():
        return await visit.site.operations.plan(task.model_copy(update={"pool": visit.names.pool}))


@router.get("/queue/status", summary="How much waits and runs", responses=declared(UNKNOWN_POOL))
async def queue_status(visit: Reads) -> TaskQueueStatus:
    """Return how many tasks of a pool wait, are delayed, run, or wait to be read."""
    return await visit.site.link.view(visit.names.pool).queue_status()


@router.get("/{task_id}", summary="One task", responses=declared(*OF_TASK))
async def task(visit: ReadsTask, task_id: TaskIdPath) -> TaskInDB:
    """Return all that is stored of a task; of a waiting one also why it waits."""
    return await record_of_task(visit, task_id)


@router.get("/{task_id}/explain", summary="Why a task waits", responses=declared(*OF_TASK, NO_LEADER, BUSY))
async def explain(visit: ReadsTask, task_id: TaskIdPath) -> Explanation:
    """Ask the leader why a live task waits, in numbers, or why it is where it is. An ended one is `unknown-task`."""
    async with visit.site.question():
        return await visit.site.operations.explain(task_id)


@router.get("/{task_id}/timeline", summary="The life of a task", responses=declared(*OF_TASK))
async def timeline(visit: ReadsTask, task_id: TaskIdPath) -> Timeline:
    """Return what has happened to a task so far: each attempt, by whom, and how it ended."""
    return timeline_of(await record_of_task(visit, task_id))


@router.get("/{task_id}/children", summary="The children of a task", responses=declared(*OF_TASK))
async def children(
    visit: ReadsTask,
    task_id: TaskIdPath,
    limit: Annotated[int, Query(ge=1, le=500, description="Most tasks of the list.")] = 100,
) -> TaskList:
    """List the tasks that a task has submitted, the oldest first; the task's `children` says how many there are."""
    await record_of_task(visit, task_id)
    found = await visit.site.operations.children(task_id, limit=limit)
    return TaskList(tasks=tuple(found), next=None)
