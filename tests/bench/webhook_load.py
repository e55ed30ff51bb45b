"""Sends signed webhooks at a steady rate, as a LiveKit server under load would.

All are signed before the first is sent.  One rule: each is sent when it is due, over connections of which
each waits for its answer; what comes late because of that is counted from when it was due.

Usage: webhook_load URL_PORT KEY SECRET RATE SECONDS ROOMS NEW_EVERY RESULT.  Every ``NEW_EVERY``-th event
is about a room that nobody knows; the others about one of ``ROOMS`` rooms, by chance.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import random
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.json_format import MessageToJson
from livekit.api import AccessToken
from livekit.protocol import models
from livekit.protocol.webhook import WebhookEvent

from tests.bench.fake_livekit import NAME
from tests.bench.ground import write_result

CONNECTIONS = 64
NEW_NAME = "new-{}"


@dataclass(frozen=True, slots=True)
class Sent:
    room: str
    due: float
    answered: float
    status: int


def requests(
    key: str, secret: str, count: int, rooms: int, new_every: int, port: int
) -> Iterator[tuple[str, bytes]]:
    for number in range(count):
        name = NEW_NAME.format(number) if number % new_every == 0 else NAME.format(random.randrange(rooms))
        event = WebhookEvent(
            event=random.choice(("participant_joined", "track_published")),
            id=f"EV_{uuid.uuid4().hex}",
            created_at=int(time.time()),
            room=models.Room(name=name, sid="RM_x"),
            participant=models.ParticipantInfo(identity="human", sid="PA_x"),
        )
        body = MessageToJson(event).encode()
        digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
        token = AccessToken(key, secret).with_sha256(digest).to_jwt()
        head = (
            f"POST /livekit/webhook HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: {token}\r\n"
            f"Content-Type: application/webhook+json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        yield name, head.encode() + body


class Sender:
    def __init__(self, port: int) -> None:
        self.sent: list[Sent] = []
        self._port = port
        self._due: asyncio.Queue[tuple[str, bytes, float] | None] = asyncio.Queue()

    async def send(self, prepared: list[tuple[str, bytes]], rate: float) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(CONNECTIONS):
                group.create_task(self._connection())
            started = time.monotonic() + 0.5
            for number, (room, request) in enumerate(prepared):
                due = started + number / rate
                if (wait := due - time.monotonic()) > 0:
                    await asyncio.sleep(wait)
                self._due.put_nowait((room, request, due))
            for _ in range(CONNECTIONS):
                self._due.put_nowait(None)

    async def _connection(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        while (item := await self._due.get()) is not None:
            room, request, due = item
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(int(x[15:]) for x in head.split(b"\r\n") if x[:15].lower() == b"content-length:")
            await reader.readexactly(length)
            self.sent.append(Sent(room, due, time.monotonic(), int(head.split(b" ", 2)[1])))
        writer.close()
        await writer.wait_closed()


async def main(port: int, prepared: list[tuple[str, bytes]], rate: float, outcome: Path) -> None:
    sender = Sender(port)
    await sender.send(prepared, rate)
    write_result(outcome, [[s.room, s.due, s.answered, s.status] for s in sender.sent])


if __name__ == "__main__":
    to, api_key, api_secret, per_second, seconds, known, new, path = sys.argv[1:]
    many = int(float(per_second) * float(seconds))
    made = list(requests(api_key, api_secret, many, int(known), int(new), int(to)))
    asyncio.run(main(int(to), made, float(per_second), Path(path)))
