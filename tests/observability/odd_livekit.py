"""A server under LiveKit's address that answers as a test wants: an error, nothing, a room that never was."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from aiohttp import web
from google.protobuf.message import Message
from livekit.protocol.agent_dispatch import ListAgentDispatchResponse
from livekit.protocol.models import ParticipantInfo
from livekit.protocol.models import Room as RoomInfo
from livekit.protocol.room import ListParticipantsResponse, ListRoomsResponse

from tests.livekit.server import KEY, SECRET
from tests.ports import free_port

FAILURES = {
    "unauthorized": (401, "unauthenticated"),
    "not_found": (404, "not_found"),
    "unavailable": (503, "unavailable"),
    "error": (500, "internal"),
}


@dataclass
class OddLiveKit:
    """``outcome``: what each method (``ListRooms``) ends with, ``ok`` if it is left out."""

    port: int = field(default_factory=free_port)
    outcome: dict[str, str] = field(default_factory=dict)
    humans: dict[str, str] = field(default_factory=dict)
    """Room to the identity of the human in it."""
    key: str = KEY
    secret: str = SECRET
    _over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        app = web.Application()
        app.router.add_post("/twirp/{service}/{method}", self._answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port).start()
        try:
            yield
        finally:
            self._over.set()
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        method = request.match_info["method"]
        outcome = self.outcome.get(method, "ok")
        if outcome == "timeout":
            await self._over.wait()
        if outcome in FAILURES:
            status, code = FAILURES[outcome]
            return web.json_response({"code": code, "msg": "as the test wants"}, status=status)
        body = self._message(method).SerializeToString()
        return web.Response(body=body, content_type="application/protobuf")

    def _message(self, method: str) -> Message:
        if method == "ListRooms":
            return ListRoomsResponse(rooms=[RoomInfo(name=r, num_participants=1) for r in self.humans])
        if method == "ListParticipants":
            infos = [
                ParticipantInfo(identity=human, state=ParticipantInfo.ACTIVE, sid=f"PA_{human}")
                for human in self.humans.values()
            ]
            return ListParticipantsResponse(participants=infos)
        return ListAgentDispatchResponse()
