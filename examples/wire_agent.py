"""An agent that knows the wire and nothing of Callboard's code: what one in another language does, spelled in Python.

    callboard up
    python examples/wire_agent.py

Every message is told in docs/wire.md. It does one task at a time and beats between tasks; one whose tasks may take
longer than its lease beats from a thread, as `agent_runtime` does.
"""

import json
import os
import time
import uuid
from typing import Any

import redis

ROOT = "callboard:{default}:"
AGENT_ID = "wire-1"
SESSION = uuid.uuid4().hex
"""One life of this process: the leader and the agent recognise what is of an earlier one."""
CONTROL = f"{ROOT}agent:{AGENT_ID}:control"
ASSIGNMENTS = f"{ROOT}agent:{AGENT_ID}:assignments"
BEAT_S = 1.0


class WireAgent:
    """Offers `text.shout`."""

    def __init__(self, url: str) -> None:
        self.server = redis.Redis.from_url(url, decode_responses=True, protocol=2)
        self.cursors: dict[Any, Any] = {CONTROL: "0-0", ASSIGNMENTS: "0-0"}
        self.signed_in = False
        self.beat_at = 0.0

    def say(self, stream: str, **message: object) -> None:
        """Write one message: JSON in the field `__data__`."""
        body = json.dumps({"v": 1, "agent_id": AGENT_ID, "session": SESSION, **message})
        self.server.xadd(ROOT + stream, {"__data__": body})

    def register(self) -> None:
        """Sign in. To repeat it is harmless."""
        self.say(
            "registrations",
            type="register",
            capabilities=[{"name": "text.shout", "version": "1.0"}],
            slots=1,
            heartbeat_interval=BEAT_S,
            lease=5.0,
        )

    def run(self) -> None:
        """Work until told to stop."""
        self.register()
        try:
            while self.turn():
                pass
        except KeyboardInterrupt:
            print("stopping")
        self.say("registrations", type="unregister", reason="stopped")

    def turn(self) -> bool:
        """Beat if it is time, read what there is, and do it; False if this was the last turn."""
        if self.signed_in and time.monotonic() >= self.beat_at:
            self.beat_at = time.monotonic() + BEAT_S
            self.say("heartbeats", holding=[])
        streams: Any = self.server.xread(self.cursors, block=500)
        for stream, entries in streams:
            for entry_id, fields in entries:
                self.cursors[stream] = entry_id
                message = json.loads(fields["__data__"])
                if message["session"] != SESSION:
                    continue
                if stream == ASSIGNMENTS:
                    self.work(message)
                elif not self.heed(message["type"]):
                    return False
        return True

    def heed(self, instruction: str) -> bool:
        """Do what the leader says; False if that is to stop. With one slot there is nothing to cancel or to recall."""
        if instruction == "registered":
            self.signed_in = True
            print(f"{AGENT_ID} is signed in", flush=True)
        elif instruction == "reregister":
            self.register()
        return instruction not in ("drain", "restart", "superseded")

    def work(self, assignment: dict[str, Any]) -> None:
        """Do one task and report how it ended."""
        result = {"task_id": assignment["task_id"], "attempt": assignment["attempt"]}
        payload = assignment["task"].get("payload")
        if isinstance(payload, str):
            result |= {"status": "COMPLETED", "output": payload.upper()}
        else:
            error = {"type": "InvalidPayload", "message": "text.shout takes a string"}
            result |= {"status": "FAILED", "reason": "rejected", "error": error}
        self.say("results", results=[result])


if __name__ == "__main__":
    WireAgent(os.environ.get("CALLBOARD_REDIS_URL", "redis://127.0.0.1:6390/0")).run()
