"""Stands between LiveKit's webhooks and the daemon: remembers who joined, and loses what it is told to lose.

One rule: what it remembers is what LiveKit said, whether or not the daemon got to hear of it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

import aiohttp
from aiohttp import web

from tests.ports import free_port

_FORWARD_TIMEOUT = aiohttp.ClientTimeout(total=5.0)
_HEADERS = ("Authorization", "Content-Type")


class Fate(StrEnum):
    """What becomes of a webhook."""

    PASSED = "passed"
    LOST = "lost"
    """LiveKit is told that it has arrived."""
    REFUSED = "refused"
    """LiveKit is told that it has not, and tries again."""
    DOUBLED = "doubled"


@dataclass(frozen=True, slots=True)
class Stay:
    """An agent's time in a room, by LiveKit's word."""

    room: str
    identity: str
    attributes: dict[str, str]
    joined_at: float
    left_at: float | None = None

    @property
    def seconds(self) -> float | None:
        return None if self.left_at is None else self.left_at - self.joined_at


class Relay:
    """``fate`` is asked anew for every webhook."""

    def __init__(self, target: str) -> None:
        self.port = free_port()
        self.fate: Callable[[], Fate] = lambda: Fate.PASSED
        self.fates: dict[Fate, int] = dict.fromkeys(Fate, 0)
        self._target = target
        self._stays: dict[str, Stay] = {}
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    async def start(self) -> None:
        self._session = aiohttp.ClientSession(timeout=_FORWARD_TIMEOUT)
        application = web.Application()
        application.router.add_post("/", self._receive)
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
        if self._session is not None:
            await self._session.close()

    # --- what LiveKit said ---

    def stays(self, room: str) -> tuple[Stay, ...]:
        """Every agent that ever became a participant of that room, in order of joining."""
        return tuple(stay for stay in self._stays.values() if stay.room == room)

    def agents(self, room: str) -> set[str]:
        return {stay.identity for stay in self.stays(room)}

    # --- inside ---

    async def _receive(self, request: web.Request) -> web.Response:
        body = await request.read()
        self._remember(json.loads(body))
        fate = self.fate()
        self.fates[fate] += 1
        if fate is Fate.LOST:
            return web.Response()
        if fate is Fate.REFUSED:
            return web.Response(status=503)
        headers = {name: request.headers[name] for name in _HEADERS if name in request.headers}
        if fate is Fate.DOUBLED:
            await self._forward(body, headers)
        return web.Response(status=await self._forward(body, headers))

    async def _forward(self, body: bytes, headers: dict[str, str]) -> int:
        assert self._session is not None
        try:
            async with self._session.post(self._target, data=body, headers=headers) as answer:
                return answer.status
        except (aiohttp.ClientError, TimeoutError):
            return 502

    def _remember(self, event: dict[str, object]) -> None:
        name = event.get("event")
        for room, participant in _agents(event):
            sid, now = str(participant["sid"]), time.monotonic()
            if name in _COMING:
                attributes = participant.get("attributes")
                told = dict(attributes) if isinstance(attributes, dict) else {}
                self._stays.setdefault(sid, Stay(room, str(participant["identity"]), told, now))
            if name in _GOING and sid in self._stays:
                stay = self._stays[sid]
                self._stays[sid] = replace(stay, left_at=stay.left_at or now)


_ABORTED = "participant_connection_aborted"
"""It was removed so soon that LiveKit had not announced it yet."""
_COMING = frozenset({"participant_joined", _ABORTED})
_GOING = frozenset({"participant_left", _ABORTED})


def _agents(event: dict[str, object]) -> Iterator[tuple[str, dict[str, object]]]:
    room, participant = event.get("room"), event.get("participant")
    if isinstance(room, dict) and isinstance(participant, dict) and participant.get("kind") == "AGENT":
        yield str(room.get("name")), participant
