"""Webhooks as LiveKit sends them, and as others would."""

from __future__ import annotations

import base64
import hashlib
import io
import time
import uuid

import aiohttp
from google.protobuf.json_format import MessageToJson
from livekit.api import AccessToken
from livekit.protocol.webhook import WebhookEvent

from tests.livekit.server import KEY, SECRET
from tests.livekit.supervised import Supervised


def event(name: str, room: str, *, age: float = 0.0, dropped: int = 0) -> bytes:
    message = WebhookEvent(
        id=f"EV_{uuid.uuid4().hex}", event=name, created_at=int(time.time() - age), num_dropped=dropped
    )
    message.room.name = room
    return MessageToJson(message).encode()


def signature(body: bytes, secret: str = SECRET) -> str:
    digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
    return AccessToken(KEY, secret).with_sha256(digest).to_jwt()


async def send(daemon: Supervised, body: bytes, authorization: str | None = None) -> int:
    """With LiveKit's signature unless another is given; the status of the answer."""
    url = f"http://127.0.0.1:{daemon.port}/livekit/webhook"
    headers = {"Authorization": signature(body) if authorization is None else authorization}
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, data=io.BytesIO(body), headers=headers) as answer,
    ):
        return answer.status
