"""Two API processes and two dispatchers, each a process of its own, and the leader killed again and again.

Every request goes to the other API process than the one before: nothing may depend on which of them is asked, and what
was answered to be stored is done whatever becomes of the dispatchers.
"""

import asyncio
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from tests.callboard.commandline import CREW, CommandLine
from tests.callboard.conftest import Running
from tests.dispatcher.api.conftest import Alternating
from tests.support.waiting import eventually

Request = dict[str, Any]
ROUNDS: Final = 2
"""How often the leader is killed."""


class Board:
    """The processes of one pool, and a client that alternates between its APIs."""

    def __init__(self, commands: CommandLine) -> None:
        self._commands = commands
        self._dispatchers: dict[str, Running] = {}
        self._started: list[Running] = []
        self._number = 0
        self.api: Any = None
        self.clients: list[httpx.AsyncClient] = []

    def start(self, *arguments: str) -> Running:
        """Start a command that runs on."""
        self._started.append(Running(self._commands.start(*arguments, "--pool", self._commands.pool)))
        return self._started[-1]

    def start_dispatcher(self) -> None:
        """Start one more dispatcher."""
        self._number += 1
        name = f"d{self._number}"
        self._dispatchers[name] = self.start(
            "dispatcher", "--id", name, "--metrics-port", "0", "--retry-base", "10ms", "--leader-lease", "2s"
        )

    async def open(self) -> None:
        """Start two of each, and an agent; return when all of them work."""
        for _ in range(2):
            self.start_dispatcher()
        apis = [self.start("api", "--port", "0") for _ in range(2)]
        agent = self.start("agent", CREW, "--id", "crew")
        for api in apis:
            root = (await asyncio.to_thread(api.wait_for, r"the API is at (http\S+)"))[1]
            self.clients.append(httpx.AsyncClient(base_url=root, timeout=60))
        self.api = Alternating(*self.clients)
        await asyncio.to_thread(agent.wait_for, "crew is signed in")

    async def leader(self) -> str | None:
        """Return the dispatcher that leads; None while it is still the one that was killed, or nobody."""
        pools = (await self.api.get("/status")).json()["pools"]
        name = next((one["leader"] for one in pools if one["pool"] == self._commands.pool), None)
        return name if name in self._dispatchers else None

    async def kill_leader(self) -> str:
        """End the process that leads by SIGKILL, and start another one that stands by; return who it was."""
        name = await eventually(self.leader)
        assert name is not None
        self._dispatchers.pop(name).close(signal.SIGKILL)
        self.start_dispatcher()
        return name

    async def close(self) -> None:
        """End them all."""
        for client in self.clients:
            await client.aclose()
        for running in reversed(self._started):
            running.close(signal.SIGTERM)


@pytest.fixture
async def board(redis_url: str, pool: str, tmp_path: Path) -> AsyncIterator[Board]:
    """Provide two of each, that work."""
    made = Board(CommandLine(redis_url, pool, tmp_path))
    try:
        await made.open()
        yield made
    finally:
        await made.close()


async def post(api: Any, path: str, body: Request | None = None, **params: Any) -> Any:
    """Send a request as a client does that minds `Retry-After`: again while nobody leads."""

    async def answered() -> Any:
        answer = await api.post(path, json=body, params=params)
        assert answer.status_code in (200, 202, 409, 503), answer.text
        return answer if answer.status_code != 503 else None

    return (await eventually(answered, timeout=30)).json()


async def submitted(api: Any, numbers: Iterable[int]) -> dict[str, int]:
    """Submit a task for each number, one by one and in a batch; return the number of each id."""
    found: dict[str, int] = {}
    numbers = list(numbers)
    for n in numbers[: len(numbers) // 4]:
        task = {"capability": "text.count", "payload": {"text": "a " * n}}
        first = await api.post("/tasks/dispatch", json=task, headers={"Idempotency-Key": f"single-{n}"})
        again = await api.post("/tasks/dispatch", json=task, headers={"Idempotency-Key": f"single-{n}"})
        assert first.json()["tasks"][0]["id"] == again.json()["tasks"][0]["id"]
        assert again.json()["tasks"][0]["known"]
        found[first.json()["tasks"][0]["id"]] = n
    rest = numbers[len(numbers) // 4 :]
    tasks = [{"capability": "text.count", "payload": {"text": "a " * n}} for n in rest]
    receipt = (await api.post("/tasks/dispatch", json={"tasks": tasks})).json()
    return found | {one["id"]: n for one, n in zip(receipt["tasks"], rest, strict=True)}


async def outputs(api: Any, ids: Iterable[str]) -> dict[str, Any]:
    """Wait for the results of tasks, from whichever process; return their outputs."""
    found: dict[str, Any] = {}
    left = list(ids)
    async with asyncio.timeout(90):
        while left:
            answer = await api.post("/tasks/results", json={"task_ids": left[:500]}, params={"wait": 20})
            assert answer.status_code in (200, 503), answer.text
            if answer.status_code == 200:
                told = answer.json()
                assert told["unknown"] == told["unreadable"] == []
                assert {one["status"] for one in told["ended"]} <= {"COMPLETED"}
                found |= {one["task_id"]: one["output"] for one in told["ended"]}
                left = [task_id for task_id in left if task_id not in found]
    return found


@pytest.mark.timeout(240)
async def test_nothing_is_lost_though_each_request_goes_elsewhere_and_the_leader_is_killed(board: Board) -> None:
    api = board.api
    wanted: dict[str, int] = {}
    killed: list[str] = []
    for round_ in range(ROUNDS):
        start = round_ * 300
        wanted |= await submitted(api, range(start, start + 100))
        polling = [
            asyncio.create_task(client.get(f"/tasks/{task_id}/result", params={"wait": 50}))
            for client, task_id in zip(board.clients, list(wanted)[-2:], strict=True)
        ]
        killing = asyncio.create_task(board.kill_leader())
        wanted |= await submitted(api, range(start + 100, start + 200))
        killed.append(await killing)
        wanted |= await submitted(api, range(start + 200, start + 300))
        for poll in polling:
            assert (await poll).json()["status"] == "COMPLETED"
    found = await outputs(api, wanted)
    assert {task_id: output["words"] for task_id, output in found.items()} == wanted
    assert len(set(killed)) == ROUNDS
    assert await eventually(board.leader, timeout=30) not in killed
    assert await _completed(board, set(wanted)) == Counter(dict.fromkeys(wanted, 1))


async def _completed(board: Board, ids: set[str]) -> Counter[str]:
    """Count the events of their ends: some read from one process, and gone on with behind them at the other."""
    seen: Counter[str] = Counter()
    last = "0-0/0"
    for client, share in zip(board.clients, (len(ids) // 2, len(ids)), strict=True):
        async with client.stream(
            "GET", "/events", params={"status": "COMPLETED"}, headers={"Last-Event-ID": last}
        ) as told:
            async for line in told.aiter_lines():
                if line.startswith("id: "):
                    last = line.removeprefix("id: ")
                elif line.startswith("data: ") and (task_id := json.loads(line[6:]).get("task_id")) in ids:
                    seen[task_id] += 1
                    if seen.total() >= share:
                        break
    return seen


@pytest.mark.timeout(240)
async def test_what_operators_ask_for_is_done_under_the_next_leader(board: Board) -> None:
    api = board.api
    (dead,) = await _ids(api, "boom", 1, max_attempts=1)
    assert (await api.get(f"/tasks/{dead}/result", params={"wait": 20})).json()["status"] == "FAILED"
    waiting = await _ids(api, "nobody.can", 3, tags=["w"])
    hanging, other = await _ids(api, "slow", 2, payload=600, max_attempts=1)
    await eventually(lambda: _run(api, hanging, other), timeout=20)
    put = await api.put(
        "/schedules/s", json={"every": 3600, "task": {"capability": "text.count", "payload": {"text": "a"}}}
    )
    assert put.status_code == 200
    await board.kill_leader()
    asked = await asyncio.gather(
        post(api, "/tasks/cancel", {"task_ids": [waiting[0], hanging]}, wait=20),
        post(api, f"/tasks/{other}/timeout", {"attempt": 1}),
        post(api, f"/tasks/{dead}/retry", {"reason": "once more"}),
        post(api, "/schedules/s/trigger"),
    )
    assert await post(api, "/tasks/cancel", {"where": {"tags": ["w"]}}) | {"matched": 2} == {
        "cancelled": [],
        "over": [],
        "unknown": [],
        "matched": 2,
    }
    await board.kill_leader()
    triggered = asked[3].get("task_id")
    if triggered is not None:  # else its first answer was lost with the leader, and it is busy
        assert (await outputs(api, [triggered]))[triggered] == {"words": 1}
    ends = {
        **dict.fromkeys([*waiting, hanging], "CANCELLED"),
        other: "FAILED",
        dead: "FAILED",
    }
    for task_id, status in ends.items():
        assert (await api.get(f"/tasks/{task_id}/result", params={"wait": 40})).json()["status"] == status, task_id
    record = (await api.get(f"/tasks/{dead}")).json()
    assert (record["attempt"], len(record["requeues"])) == (2, 1)
    assert (await api.get(f"/tasks/{other}")).json()["reason"] == "timeout"
    paused = await post(api, "/agents/crew/pause", {"note": "audit"}, wait=20)
    assert paused["state"] == "done"


async def _ids(api: Any, capability: str, number: int, **fields: Any) -> list[str]:
    task = {"capability": capability, "payload": "x", **fields}
    receipt = (await api.post("/tasks/dispatch", json={"tasks": [task] * number})).json()
    return [one["id"] for one in receipt["tasks"]]


async def _run(api: Any, *ids: str) -> bool:
    answers = [await api.get(f"/tasks/{task_id}") for task_id in ids]
    return all(answer.status_code == 200 and answer.json()["status"] == "RUNNING" for answer in answers)
