"""The last touches to the OpenAPI document: what FastAPI cannot know, and words for fields that have none of their own.

Records and messages of `bus` are shown as they are; what their fields mean, where the name does not say it to an HTTP
client, is in the table here. A test finds every field without a description.
"""

from typing import Any, Final

from fastapi import FastAPI

from dispatcher.api.problems import Problem

_FIELDS: Final[dict[str, str]] = {
    "created_at": "When it was made; ms since the epoch.",
    "ended_after": "It ended at this or later; ms since the epoch.",
    "ended_before": "It ended earlier; ms since the epoch.",
    "enqueued_after": "It was submitted at this or later; ms since the epoch.",
    "enqueued_before": "It was submitted earlier; ms since the epoch.",
    "last_task": "The latest task that it has submitted.",
    "missed": "What becomes of firings that were due while nobody led, or it was paused.",
    "overlap": "What a firing does while the task of an earlier one has not ended.",
    "paused": "Whether it rests until it is resumed.",
    "resumed_at": "When it was resumed last; ms since the epoch.",
    "task": "The task that it submits.",
    "acknowledged_at": "When its code was told; ms since the epoch.",
    "by": "Who wanted it.",
    "confirmed_at": "When the agent said that it does so; ms since the epoch.",
    "delivered_at": "When its agent was told; ms since the epoch.",
    "done_at": "When it was done; ms since the epoch.",
    "grace_ms": "How long its agent has to stop it, in milliseconds.",
    "kind": "What is asked for.",
    "outcome": "What came of it; none while it is under way.",
    "at": "When; ms since the epoch.",
    "requested_at": "When it was asked for; ms since the epoch.",
    "requeues": "Earlier lives, the latest last.",
    "since": "Since when; ms since the epoch.",
    "why": "What the operator gave as the reason.",
    "accepts": "Conditions on tasks: it gets only those that meet all of them.",
    "agent_id": "The agent's id.",
    "agents": "The agents.",
    "any_of": "Conditions of which one is enough.",
    "assigned": "Tasks given to it that it has not begun.",
    "assigned_at": "When the current or last attempt was given to its agent; ms since the epoch.",
    "attempt": "Number of the attempt, from 1; 0 before the first.",
    "attempts": "Attempts that are over.",
    "attribute": "Name of the attribute.",
    "attributes": "What conditions look at.",
    "capabilities": "What it can do.",
    "capability": "The capability that is to do it.",
    "completed": "Tasks it has completed in its session.",
    "count": "How many.",
    "ended_at": "When it ended; ms since the epoch.",
    "enqueued_at": "When it was submitted; ms since the epoch.",
    "error": "What went wrong.",
    "exclusive": "Whether its tasks must never run twice at once.",
    "factor": "By how much each wait's bound grows.",
    "failed": "Attempts that have failed in it in its session.",
    "fairness_key": "Whose it is: tasks of different keys take turns.",
    "finished_at": "When it ended; ms since the epoch.",
    "health": "What its heartbeats show.",
    "heartbeat_interval": "Seconds between its heartbeats.",
    "id": "The task's id.",
    "jitter": "Whether waits are drawn at random below their bound.",
    "key": "What it is known by, to others that name the same.",
    "lacks": "What it lacks, in words.",
    "lease": "Seconds of silence after which it is lost.",
    "limit": "A limit that lets no more of them pass now.",
    "max_attempts": "How often it is tried.",
    "message": "What it says.",
    "metadata": "Kept and shown, not looked at.",
    "name": "Its name.",
    "not_before": "It is not assigned before this; ms since the epoch.",
    "note": "What it has last said of itself.",
    "op": "How it is compared.",
    "output": "What it returned, JSON.",
    "payload": "What the agent is given, JSON.",
    "pool": "The pool it is in.",
    "prefers": "What is better met, but not required.",
    "priority": "How urgent it is.",
    "progress": "How far it is, from 0 to 1, if it has said so.",
    "rate": "Most starts per time: `600/min`.",
    "reason": "Why it is as it is.",
    "registered_at": "When it signed in; ms since the epoch.",
    "requires": "Conditions that its agent must meet.",
    "resources": "Named amounts beside slots.",
    "running": "Tasks that run in it.",
    "session": "The life of the agent's process.",
    "slots": "Tasks at once.",
    "spec": "The task as it was submitted.",
    "started_at": "When it began to run; ms since the epoch.",
    "status": "What state it is in.",
    "tags": "Words to find it by.",
    "task_id": "The task's id.",
    "traceback": "Where it happened.",
    "type": "Of what type it is.",
    "value": "What it is compared with.",
    "version": "The version, or which versions will do.",
    "weight": "What meeting it is worth.",
    "workload": "What it has to do.",
}


def finish(app: FastAPI) -> None:
    """Have `app.openapi` return the finished document."""
    original = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = original()
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(problem.pop("$defs", {}))
            schemas["Problem"] = problem
            for schema in schemas.values():
                for name, field in schema.get("properties", {}).items():
                    if "description" not in field and name in _FIELDS:
                        field["description"] = _FIELDS[name]
            for path in document["paths"].values():
                for operation in path.values():
                    _open_to_anybody(operation)
        return app.openapi_schema or document

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI's own way


def _open_to_anybody(operation: dict[str, Any]) -> None:
    """Say that a token need not be sent where the API asks for none, on loopback."""
    if "security" in operation:
        operation["security"].append({})
