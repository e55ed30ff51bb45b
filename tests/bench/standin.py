"""The stand-in for LiveKit as a running program: same address, key and doors as a real server's."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, cast

import aiohttp

from tests.bench.ground import Ground, module, program
from tests.livekit.server import KEY, SECRET, LiveKitServer
from tests.ports import free_port


class StandIn:
    key = KEY
    secret = SECRET

    def __init__(self) -> None:
        self.port = free_port()
        self.http_url = f"http://127.0.0.1:{self.port}"
        self.url = f"ws://127.0.0.1:{self.port}"

    @property
    def as_server(self) -> LiveKitServer:
        """To those who only want to know where it is."""
        return cast(LiveKitServer, self)

    async def notes(self) -> dict[str, list[tuple[str, float]]]:
        async with aiohttp.ClientSession() as session, session.get(f"{self.http_url}/notes") as answer:
            return cast(dict[str, Any], await answer.json())


@contextlib.asynccontextmanager
async def standin(ground: Ground, rooms: int, agent_name: str) -> AsyncIterator[StandIn]:
    server = StandIn()
    command = module("fake_livekit", str(server.port), str(rooms), agent_name)
    with program(command, ground.folder / "standin.log"):
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    await server.notes()
                    break
                await asyncio.sleep(0.05)
        yield server
