"""The guard protocol (docs/protocol.md), spoken by a test through a process that the daemon supervises."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.observability import lender

ANSWER_SECONDS = 10.0
AGENT = "lender"


class Lender:
    """An agent, and the socket through which it is spoken for."""

    def __init__(self, runtime: Path) -> None:
        self.path = runtime / "lender.sock"
        self._daemon = runtime / "guard.sock"

    def configured(self, **changes: Any) -> dict[str, Any]:
        return {
            "id": AGENT,
            "name": "L",
            "command": [sys.executable, lender.__file__, str(self.path), str(self._daemon)],
            "max_rooms": 2,
            "heartbeat": {"interval": "2s", "timeout": "10m"},
            "stop": {"drain": "10m", "kill": "1m"},
            **changes,
        }

    async def listens(self) -> None:
        async with asyncio.timeout(20):
            while not self.path.exists():  # noqa: ASYNC110 - it is made by another process
                await asyncio.sleep(0.02)


class Mouth:
    """One connection: a worker's, or a job's."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._requests = 0

    def says(self, type: str, **fields: object) -> None:
        self._writer.write(json.dumps({"type": type, **fields}).encode() + b"\n")

    async def hears(self, type: str) -> dict[str, Any]:
        """The next message of that type."""
        async with asyncio.timeout(ANSWER_SECONDS):
            while line := await self._reader.readline():
                message: dict[str, Any] = json.loads(line)
                if message["type"] == type:
                    return message
        raise AssertionError(f"the connection was closed before any {type}")

    async def asks(self, room: str, job: str) -> str:
        """May this job have the room?  The outcome."""
        self._requests += 1
        names = {"room": room, "room_sid": "", "job_id": job, "dispatch_id": "", "agent_name": ""}
        self.says("request", id=self._requests, identity=f"agent-{job}", **names)
        answer = await self.hears("answer")
        assert answer["id"] == self._requests
        return str(answer["outcome"])


@contextlib.asynccontextmanager
async def mouth(path: Path, agent_id: str, **hello: object) -> AsyncIterator[Mouth]:
    """Connected and welcome, through the process that listens at ``path``."""
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        speaker = Mouth(reader, writer)
        speaker.says("hello", v=1, agent_id=agent_id, guard="test", agents="none", **hello)
        await speaker.hears("welcome")
        yield speaker
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def worker(path: Path, agent_id: str) -> contextlib.AbstractAsyncContextManager[Mouth]:
    return mouth(path, agent_id, role="worker", executor="thread", max_load=None)


def job(path: Path, agent_id: str, room: str, job_id: str) -> contextlib.AbstractAsyncContextManager[Mouth]:
    """One that is in the room already."""
    names = {"room": room, "job_id": job_id, "dispatch_id": "", "identity": f"agent-{job_id}"}
    return mouth(path, agent_id, role="job", executor="thread", epoch=None, joined=True, **names)
