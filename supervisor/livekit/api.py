"""LiveKit's server API as :class:`supervisor.core.ports.LiveKit`.

One rule: "there is none" is said only when LiveKit said so; whatever else went wrong is unknown.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TypeVar

from google.protobuf.message import Message
from livekit.api import VideoGrants
from livekit.protocol.agent_dispatch import (
    AgentDispatch,
    CreateAgentDispatchRequest,
    DeleteAgentDispatchRequest,
    ListAgentDispatchRequest,
    ListAgentDispatchResponse,
)
from livekit.protocol.room import (
    ListParticipantsRequest,
    ListParticipantsResponse,
    ListRoomsRequest,
    ListRoomsResponse,
    RemoveParticipantResponse,
    RoomParticipantIdentity,
)

from supervisor.core.model import Dispatch, Participant, Room, Unknown
from supervisor.core.ports import Done, Failed, RequestOutcome
from supervisor.events import EventBus
from supervisor.livekit.calls import Calls, Method
from supervisor.livekit.messages import dispatch_of, is_present, participant_of, room_of

MISSING_ROOM_PATIENCE = 0.5
"""Seconds without an answer until the store is asked whether the room exists at all."""

STORE_LOST_SECONDS = 10.0
"""After LiveKit failed to list rooms: a Redis that came back empty knows of none, though nodes serve them."""

_NO_ROOM = "livekit-supervisor-ping"


def _list_grants(_: str) -> VideoGrants:
    return VideoGrants(room_list=True)


def _room_grants(room: str) -> VideoGrants:
    return VideoGrants(room_admin=True, room=room)


LIST_ROOMS = Method("list_rooms", "RoomService", "ListRooms", ListRoomsResponse, _list_grants)
LIST_PARTICIPANTS = Method(
    "list_participants", "RoomService", "ListParticipants", ListParticipantsResponse, _room_grants
)
REMOVE_PARTICIPANT = Method(
    "remove_participant", "RoomService", "RemoveParticipant", RemoveParticipantResponse, _room_grants
)
LIST_DISPATCHES = Method(
    "list_dispatches",
    "AgentDispatchService",
    "ListDispatch",
    ListAgentDispatchResponse,
    _room_grants,
)
CREATE_DISPATCH = Method(
    "create_dispatch", "AgentDispatchService", "CreateDispatch", AgentDispatch, _room_grants
)
DELETE_DISPATCH = Method(
    "delete_dispatch", "AgentDispatchService", "DeleteDispatch", AgentDispatch, _room_grants
)

T = TypeVar("T", bound=Message)


class LiveKitClient:
    """Every call ends within ``timeout`` seconds, plus its patience, and publishes what became of it."""

    def __init__(self, url: str, key: str, secret: str, timeout: float, bus: EventBus) -> None:
        self._calls = Calls(url, key, secret, timeout, bus)
        self._store_lost_at = -STORE_LOST_SECONDS

    async def aclose(self) -> None:
        await self._calls.aclose()

    async def ping(self) -> Done | Failed:
        """Whether LiveKit answers and accepts the key; a small question, whatever is going on there."""
        answer = await self._list(_NO_ROOM)
        return answer if isinstance(answer, Failed) else Done()

    async def list_rooms(self) -> tuple[Room, ...] | Unknown:
        answer = await self._list()
        if isinstance(answer, Failed):
            return _unknown(answer)
        return tuple(room_of(message) for message in answer.rooms)

    async def list_participants(self, room: str) -> tuple[Participant, ...] | Unknown:
        request = ListParticipantsRequest(room=room)
        answer = await self._call_in_room(LIST_PARTICIPANTS, request, room)
        if isinstance(answer, Failed):
            return () if answer.outcome is RequestOutcome.NOT_FOUND else _unknown(answer)
        return tuple(participant_of(info) for info in answer.participants if is_present(info))

    async def list_dispatches(self, room: str) -> tuple[Dispatch, ...] | Unknown:
        request = ListAgentDispatchRequest(room=room)
        answer = await self._call_in_room(LIST_DISPATCHES, request, room)
        if isinstance(answer, Failed):
            return () if answer.outcome is RequestOutcome.NOT_FOUND else _unknown(answer)
        return tuple(dispatch_of(message) for message in answer.agent_dispatches)

    async def remove_participant(self, room: str, identity: str) -> Done | Failed:
        request = RoomParticipantIdentity(room=room, identity=identity)
        return _done(await self._calls.call(REMOVE_PARTICIPANT, request, room))

    async def create_dispatch(self, room: str, agent_name: str, metadata: str) -> Dispatch | Failed:
        """Mind: LiveKit creates a room that is missing, with its default dispatch beside this one."""
        request = CreateAgentDispatchRequest(room=room, agent_name=agent_name, metadata=metadata)
        answer = await self._calls.call(CREATE_DISPATCH, request, room)
        return answer if isinstance(answer, Failed) else dispatch_of(answer)

    async def delete_dispatch(self, room: str, dispatch_id: str) -> Done | Failed:
        request = DeleteAgentDispatchRequest(room=room, dispatch_id=dispatch_id)
        return _done(await self._call_in_room(DELETE_DISPATCH, request, room))

    async def _call_in_room(self, method: Method[T], request: Message, room: str) -> T | Failed:
        """A call that only the room's node can answer.

        Where no node serves the room LiveKit says 503 after 3 s, be it that the room does not exist, be
        it that its node died.  Its list of rooms, which comes from the store, tells the two apart.
        """
        started = time.monotonic()
        call = asyncio.ensure_future(self._calls.call(method, request, room))
        try:
            await asyncio.wait({call}, timeout=MISSING_ROOM_PATIENCE)
            exists = None if call.done() else await self._exists(room)
            if call.done() or exists is None:
                return await call
            if exists:
                return _unserved(await call)
        finally:
            await _end(call)
        failed = Failed(RequestOutcome.NOT_FOUND, "no such room")
        self._calls.publish(method, failed, time.monotonic() - started)
        return failed

    async def _exists(self, room: str) -> bool | None:
        """None: that is not known either."""
        answer = await self._list(room)
        if isinstance(answer, Failed):
            return None
        doubtful = time.monotonic() < self._store_lost_at + STORE_LOST_SECONDS
        return True if answer.rooms else None if doubtful else False

    async def _list(self, *names: str) -> ListRoomsResponse | Failed:
        answer = await self._calls.call(LIST_ROOMS, ListRoomsRequest(names=names))
        if isinstance(answer, Failed) and answer.outcome is RequestOutcome.ERROR:
            self._store_lost_at = time.monotonic()
        return answer


async def _end(call: asyncio.Future[T | Failed]) -> None:
    if not call.done():
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call


def _unserved(answer: T | Failed) -> T | Failed:
    if not isinstance(answer, Failed) or answer.outcome is not RequestOutcome.UNAVAILABLE:
        return answer
    return Failed(answer.outcome, f"no node of LiveKit serves this room, which it lists: {answer.message}")


def _unknown(failed: Failed) -> Unknown:
    return Unknown(f"{failed.outcome}: {failed.message}")


def _done(answer: Message | Failed) -> Done | Failed:
    if not isinstance(answer, Failed):
        return Done()
    return Done(answer.outcome) if answer.outcome is RequestOutcome.NOT_FOUND else answer
