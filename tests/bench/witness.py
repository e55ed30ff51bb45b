"""LiveKit's own word on who came and went: a receiver of its webhooks that notes when each arrived.

It is one more address beside the daemon's, so that what is measured does not rest on what the daemon says.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator

from aiohttp import web

from tests.ports import free_port


class Witness:
    def __init__(self) -> None:
        self.port = free_port()
        self._seen: dict[tuple[str, str], float] = {}
        self._in_room: dict[tuple[str, str], float] = {}
        self._changed = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[Witness]:
        application = web.Application()
        application.router.add_post("/", self._handle)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port).start()
        try:
            yield self
        finally:
            await runner.cleanup()

    async def time_of(self, event: str, identity: str, timeout: float) -> float:
        """Raises TimeoutError."""
        async with asyncio.timeout(timeout):
            while (seen := self._seen.get((event, identity))) is None:
                self._changed.clear()
                await self._changed.wait()
        return seen

    async def first_in(self, room: str, event: str, timeout: float) -> float:
        """When this was first told of anybody in that room.  Raises TimeoutError."""
        async with asyncio.timeout(timeout):
            while (seen := self._in_room.get((event, room))) is None:
                self._changed.clear()
                await self._changed.wait()
        return seen

    async def stay_of(self, identity: str, timeout: float) -> float:
        """Seconds from its joining to its leaving."""
        left = await self.time_of("participant_left", identity, timeout)
        return left - await self.time_of("participant_joined", identity, timeout)

    async def _handle(self, request: web.Request) -> web.Response:
        now = time.monotonic()
        body = json.loads(await request.read())
        key = (body.get("event", ""), body.get("participant", {}).get("identity", ""))
        self._seen.setdefault(key, now)
        self._in_room.setdefault((key[0], body.get("room", {}).get("name", "")), now)
        self._changed.set()
        return web.Response()
