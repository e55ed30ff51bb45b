"""What LiveKit can be seen to be set to, from outside: version, clock, way of reading, departure time.

One rule: everything here is a look, but for :meth:`Inspection.probe`, which makes a room of its own, empty,
asks for no agent that could come, and deletes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit, urlunsplit

import aiohttp
from google.protobuf.message import DecodeError
from livekit.api import AccessToken, VideoGrants
from livekit.protocol.agent import JobType, RegisterWorkerRequest, ServerMessage, WorkerMessage
from livekit.protocol.agent_dispatch import RoomAgentDispatch
from livekit.protocol.models import Room as RoomMessage
from livekit.protocol.room import (
    CreateRoomRequest,
    DeleteRoomRequest,
    DeleteRoomResponse,
    ListParticipantsRequest,
)

from supervisor.core.model import Room
from supervisor.core.ports import Failed, RequestOutcome
from supervisor.events import EventBus
from supervisor.livekit.api import LIST_PARTICIPANTS
from supervisor.livekit.calls import Calls, Method
from supervisor.livekit.messages import room_of

STORE_ANSWERS_WITHIN = 1.0
"""Seconds.  The store says at once that nobody is there; a node that could know is waited for, 3 s."""

NOBODY = "livekit-supervisor-diagnose"
"""An agent name that no worker has, and the beginning of our rooms' names."""


def _create_grants(_: str) -> VideoGrants:
    return VideoGrants(room_create=True)


_CREATE_ROOM = Method("create_room", "RoomService", "CreateRoom", RoomMessage, _create_grants)
_DELETE_ROOM = Method("delete_room", "RoomService", "DeleteRoom", DeleteRoomResponse, _create_grants)


@dataclass(frozen=True, slots=True)
class ServerInfo:
    version: str
    cloud: bool
    protocol: int
    """Of agents."""


class Inspection:
    """One LiveKit server, for as long as a diagnosis takes."""

    def __init__(self, url: str, key: str, secret: str, timeout: float) -> None:
        self._http = _http_url(url)
        self._key, self._secret, self._timeout = key, secret, timeout
        self._calls = Calls(url, key, secret, timeout, EventBus())

    async def aclose(self) -> None:
        await self._calls.aclose()

    async def clock_skew(self) -> float | None:
        """Seconds by which LiveKit's clock is ahead of ours, to the second; None when it does not tell."""
        before = time.time()
        async with self._session() as session, session.get(self._http) as response:
            after = time.time()
            told = response.headers.get("Date")
        if told is None:
            return None
        try:
            theirs = parsedate_to_datetime(told).timestamp()
        except ValueError:
            return None
        # The header has whole seconds, cut off: anything from ``theirs`` to a second later.
        if before - 1 <= theirs <= after:
            return 0.0
        return theirs - after if theirs > after else theirs + 1 - before

    async def server(self) -> ServerInfo | None:
        """As it introduces itself to workers: one registers under a name that nobody asks for, and goes."""
        register = RegisterWorkerRequest(type=JobType.JT_ROOM, agent_name=NOBODY, version="1")
        token = AccessToken(self._key, self._secret).with_grants(VideoGrants(agent=True)).to_jwt()
        headers = {"Authorization": f"Bearer {token}"}
        async with (
            self._session() as session,
            session.ws_connect(f"{self._http}/agent", headers=headers, params={"protocol": "1"}) as socket,
        ):
            await socket.send_bytes(WorkerMessage(register=register).SerializeToString())
            answer = await socket.receive()
        return _server_info(answer.data) if answer.type is aiohttp.WSMsgType.BINARY else None

    async def reads_live_memory(self) -> bool | None:
        """Whether ListParticipants asks the node that serves a room, not the store; None if it fails."""
        request = ListParticipantsRequest(room=f"{NOBODY}-{secrets.token_hex(6)}")
        try:
            async with asyncio.timeout(STORE_ANSWERS_WITHIN):
                answer = await self._calls.call(LIST_PARTICIPANTS, request, request.room)
        except TimeoutError:
            return True
        if isinstance(answer, Failed):
            absent = (RequestOutcome.NOT_FOUND, RequestOutcome.UNAVAILABLE)
            return True if answer.outcome in absent else None
        return False

    @contextlib.asynccontextmanager
    async def probe(self) -> AsyncIterator[Room | Failed]:
        """An empty room for as long as this lasts, as LiveKit makes them: for its settings and webhooks."""
        name = f"{NOBODY}-{secrets.token_hex(6)}"
        # With an agent asked for, LiveKit makes no default dispatch, so that no unnamed worker comes.
        wanted = [RoomAgentDispatch(agent_name=NOBODY)]
        request = CreateRoomRequest(name=name, empty_timeout=10, agents=wanted)
        made = await self._calls.call(_CREATE_ROOM, request, name)
        try:
            yield made if isinstance(made, Failed) else room_of(made)
        finally:
            if not isinstance(made, Failed):
                await self._calls.call(_DELETE_ROOM, DeleteRoomRequest(room=name), name)

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=self._timeout))


def _http_url(url: str) -> str:
    parts = urlsplit(url)
    scheme = {"ws": "http", "wss": "https"}.get(parts.scheme, parts.scheme)
    return urlunsplit(parts._replace(scheme=scheme)).rstrip("/")


def _server_info(data: bytes) -> ServerInfo | None:
    message = ServerMessage()
    try:
        message.ParseFromString(data)
    except DecodeError:
        return None
    info = message.register.server_info
    return ServerInfo(info.version, info.edition == info.Cloud, info.agent_protocol) if info.version else None
