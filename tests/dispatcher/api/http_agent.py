"""An agent that speaks HTTP and nothing else; a test tells it what to do."""

from typing import Any

import httpx


class HttpAgent:
    """One session of an agent. `api` may send each request to another process."""

    def __init__(self, api: Any, agent_id: str = "http", headers: dict[str, str] | None = None) -> None:
        self.api = api
        self.id = agent_id
        self.headers = headers or {}
        self.session = ""
        self.cursor = ""
        self.polled: str | None = None

    async def register(self, *capabilities: str, **fields: Any) -> httpx.Response:
        """Sign in, for a day without heartbeats unless `lease` says otherwise."""
        offered = [{"name": name} for name in capabilities or ("text.count",)]
        body = {"agent_id": self.id, "capabilities": offered, "slots": 8, "lease": 86_400, **fields}
        answer: httpx.Response = await self.api.post("/agents/register", json=body, headers=self.headers)
        if answer.status_code == 201:
            self.session, self.cursor = answer.json()["session"], answer.json()["cursor"]
        return answer

    async def poll(self, wait: float = 5.0, **params: Any) -> list[Any]:
        """Return what there is to do."""
        answer = await self.ask(wait, **params)
        assert answer.status_code == 200, answer.text
        self.polled = answer.json()["cursor"]
        found: list[Any] = answer.json()["assignments"]
        return found

    async def ask(self, wait: float = 0.0, **params: Any) -> httpx.Response:
        """Poll once."""
        query = {"session": self.session, "wait": wait, **params}
        answer: httpx.Response = await self.api.get(
            f"/agents/{self.id}/assignments", params=query, headers=self.headers
        )
        return answer

    async def beat(self, *held: Any, **fields: Any) -> httpx.Response:
        """Beat, holding these assignments."""
        holding = [{"task_id": one["task_id"], "attempt": one["attempt"]} for one in held]
        body = {"session": self.session, "holding": holding, **fields}
        answer: httpx.Response = await self.api.post(f"/agents/{self.id}/heartbeat", json=body, headers=self.headers)
        return answer

    async def told(self, *held: Any, **fields: Any) -> list[Any]:
        """Beat, and return what is told."""
        answer = await self.beat(*held, **fields)
        assert answer.status_code == 200, answer.text
        control: list[Any] = answer.json()["control"]
        return control

    async def say(self, what: str, of: Any, **fields: Any) -> httpx.Response:
        """Say `start`, `progress` or `result` of an assignment."""
        body = {"session": self.session, "attempt": of["attempt"], **fields}
        answer: httpx.Response = await self.api.post(f"/tasks/{of['task_id']}/{what}", json=body, headers=self.headers)
        return answer

    async def leave(self, **params: Any) -> httpx.Response:
        """Have it deleted."""
        answer: httpx.Response = await self.api.delete(f"/agents/{self.id}", params=params, headers=self.headers)
        return answer
