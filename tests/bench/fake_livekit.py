"""Answers LiveKit's server API from memory, for tens of thousands of rooms, and notes who asked what when.

It stands in where so many participants would be too heavy for one machine.  One rule: it does as little as
it can for each request, so that what is measured is who asks.

Rooms named ``room-N`` have a human, an agent of the given name and its dispatch.  A room that is first
asked about has a human only, and gets its agent by ``CreateDispatch``: that moment is noted.
``GET /notes`` gives the notes, and begins anew.

Usage: fake_livekit PORT ROOMS AGENT_NAME.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable

from livekit.protocol import agent_dispatch, models, room

NAME = "room-{}"
_JOINED = 1_700_000_000

Answer = bytes
Method = Callable[[bytes], Answer]


class Rooms:
    def __init__(self, count: int, agent_name: str) -> None:
        self.agent_name = agent_name
        self.looked: list[tuple[str, float]] = []
        """Room, and when its participants were read."""
        self.dispatched: list[tuple[str, float]] = []
        self._participants: dict[str, bytes] = {}
        self._dispatches: dict[str, bytes] = {}
        for number in range(count):
            self._give_agent(NAME.format(number))
        self._listed = self._list(count)

    def _list(self, count: int) -> bytes:
        listed = (
            models.Room(name=NAME.format(n), sid=f"RM_{n:012d}", num_participants=1) for n in range(count)
        )
        return room.ListRoomsResponse(rooms=listed).SerializeToString()

    def _give_agent(self, name: str) -> None:
        job = f"AJ_{name}"
        agent = models.ParticipantInfo(
            identity=f"agent-{job}",
            sid=f"PA_{name}",
            kind=models.ParticipantInfo.Kind.AGENT,
            state=models.ParticipantInfo.State.ACTIVE,
            joined_at=_JOINED,
            attributes={"lk.agent_name": self.agent_name},
            tracks=[models.TrackInfo(sid="TR_agent", type=models.TrackType.AUDIO)],
        )
        listed = room.ListParticipantsResponse(participants=[_human(), agent])
        self._participants[name] = listed.SerializeToString()
        dispatch = agent_dispatch.AgentDispatch(
            id=f"AD_{name}",
            agent_name=self.agent_name,
            room=name,
            state=agent_dispatch.AgentDispatchState(jobs=[{"id": job}], created_at=_JOINED * 10**9),
        )
        self._dispatches[name] = agent_dispatch.ListAgentDispatchResponse(
            agent_dispatches=[dispatch]
        ).SerializeToString()

    def list_rooms(self, _: bytes) -> Answer:
        return self._listed

    def list_participants(self, body: bytes) -> Answer:
        name = room.ListParticipantsRequest.FromString(body).room
        self.looked.append((name, time.monotonic()))
        return self._participants.get(name, _ONLY_A_HUMAN)

    def list_dispatch(self, body: bytes) -> Answer:
        name = agent_dispatch.ListAgentDispatchRequest.FromString(body).room
        return self._dispatches.get(name, b"")

    def create_dispatch(self, body: bytes) -> Answer:
        name = agent_dispatch.CreateAgentDispatchRequest.FromString(body).room
        self.dispatched.append((name, time.monotonic()))
        self._give_agent(name)
        return agent_dispatch.AgentDispatch(
            id=f"AD_{name}", agent_name=self.agent_name, room=name
        ).SerializeToString()

    def nothing(self, _: bytes) -> Answer:
        return b""

    def notes(self) -> bytes:
        taken = json.dumps({"looked": self.looked, "dispatched": self.dispatched}).encode()
        self.looked, self.dispatched = [], []
        return taken


def _human() -> models.ParticipantInfo:
    return models.ParticipantInfo(
        identity="human", sid="PA_human", state=models.ParticipantInfo.State.ACTIVE, joined_at=_JOINED
    )


_ONLY_A_HUMAN = room.ListParticipantsResponse(participants=[_human()]).SerializeToString()


class Connection(asyncio.Protocol):
    """HTTP/1.1 as aiohttp's client speaks it: one request at a time, each with its length."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self._buffer = b""
        self._methods: dict[bytes, Method] = {
            b"ListRooms": rooms.list_rooms,
            b"ListParticipants": rooms.list_participants,
            b"ListDispatch": rooms.list_dispatch,
            b"CreateDispatch": rooms.create_dispatch,
        }

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end]
            length = _content_length(head)
            if len(self._buffer) < end + 4 + length:
                return
            body = self._buffer[end + 4 : end + 4 + length]
            self._buffer = self._buffer[end + 4 + length :]
            self._answer(head.split(b" ", 2)[1], body)

    def _answer(self, path: bytes, body: bytes) -> None:
        if path == b"/notes":
            content, kind = self._rooms.notes(), b"application/json"
        else:
            method = self._methods.get(path.rpartition(b"/")[2], self._rooms.nothing)
            content, kind = method(body), b"application/protobuf"
        head = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n" % (kind, len(content))
        self._transport.write(head + content)


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        if line[:15].lower() == b"content-length:":
            return int(line[15:])
    return 0


async def main(port: int, rooms: Rooms) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(rooms), "127.0.0.1", port, backlog=512)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Rooms(int(sys.argv[2]), sys.argv[3])))
