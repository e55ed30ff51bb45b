"""The daemon as the endpoints see it, for their tests."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sized

from supervisor.endpoints.ports import CommandError, Document
from supervisor.events import Event, EventBus, WebhookOutcome

STATUS: Document = {
    "version": 1,
    "daemon": {"version": "0.1.0", "pid": 1, "since": "2026-01-01T00:00:00.000Z", "mode": "production"},
    "livekit": {"url": "ws://127.0.0.1:7880", "up": True, "error": None},
    "agents": [],
    "rooms": {"healthy": 0},
    "problems": [],
}


def room(name: str, state: str = "healthy", humans: int = 1, **changes: object) -> Document:
    return {
        "name": name,
        "sid": f"RM_{name}",
        "state": state,
        "reason": None,
        "humans": humans,
        "agents": [{"identity": "agent-AJ_1", "agent_id": "agent-a", "holder": True}],
        "claim": {"agent_id": "agent-a", "job_id": "AJ_1", "epoch": 1},
        **changes,
    }


def agent(agent_id: str, **changes: object) -> Document:
    return {
        "id": agent_id,
        "name": "Agent_66",
        "want": "running",
        "state": "ready",
        "reason": None,
        "pid": 4711,
        "since": "2026-01-01T00:00:00.000Z",
        "ready": True,
        "restarts": 0,
        "jobs": 1,
        "memory_bytes": 1024 * 1024,
        **changes,
    }


class FakeViews:
    """What is set here is shown; an exception set here is raised."""

    def __init__(self) -> None:
        self.now: Document = STATUS
        self.all_rooms: list[Document] = []
        self.alive = (True, "alive")
        self.ready = (True, "ready")
        self.since: float | None = -1.0
        self.error: Exception | None = None
        self.looks = 0

    def _look(self) -> None:
        self.looks += 1
        if self.error is not None:
            raise self.error

    def status(self) -> Document:
        self._look()
        return self.now

    def rooms(self) -> Document:
        self._look()
        return {"version": 1, "rooms": [dict(each) for each in self.all_rooms]}

    async def conflicts(self, since: float | None) -> Document:
        self._look()
        self.since = since
        return {"version": 1, "conflicts": []}

    def liveness(self) -> tuple[bool, str]:
        return self.alive

    def readiness(self) -> tuple[bool, str]:
        return self.ready


class FakeSink:
    def __init__(self) -> None:
        self.outcome = WebhookOutcome.ACCEPTED
        self.error: Exception | None = None
        self.received: list[tuple[bytes, str | None]] = []

    def receive(self, body: bytes, authorization: str | None) -> WebhookOutcome:
        self.received.append((body, authorization))
        if self.error is not None:
            raise self.error
        return self.outcome


class FakeCommands:
    """``wait`` lets a command take as long as the test wants it to."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Mapping[str, object]]] = []
        self.done: list[str] = []
        self.error: Exception | None = None
        self.wait: asyncio.Event | None = None

    async def until(self, record: Sized) -> None:
        """Until one of the lists above has something in it."""
        for _ in range(500):
            if record:
                return
            await asyncio.sleep(0.01)
        raise AssertionError("did not happen in 5 s")

    async def run(self, command: str, arguments: Mapping[str, object]) -> Document:
        self.asked.append((command, arguments))
        if self.error is not None:
            raise self.error
        if self.wait is not None:
            await self.wait.wait()
        if command == "unknown":
            raise CommandError("there is no command 'unknown'", 2)
        self.done.append(command)
        return {"ok": True, "command": command}


class Recorder:
    """Every event that was published."""

    def __init__(self, bus: EventBus) -> None:
        self.events: list[Event] = []
        bus.subscribe(self.events.append)

    def of(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]
