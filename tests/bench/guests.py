"""Raw participants of a room, as a program beside us: tests.bench.guest, spoken to line by line."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from livekit.api import AccessToken, VideoGrants

from tests.bench.ground import module
from tests.livekit.server import LiveKitServer
from tests.livekit.supervised import ROOT


class Guests:
    def __init__(self, server: LiveKitServer, process: asyncio.subprocess.Process) -> None:
        self._server = server
        self._process = process

    async def visit(self, room: str, identity: str, **of: Any) -> dict[str, Any]:
        """Until it has been removed."""
        return dict(json.loads(await self._send(self._token(room, identity, **of))))

    async def stay(self, room: str, identity: str, **of: Any) -> None:
        """Until the end."""
        assert await self._send(f"{self._token(room, identity, **of)} stay") == "in"

    async def _send(self, text: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{self._server.url} {text}\n".encode())
        async with asyncio.timeout(90):
            line = await self._process.stdout.readline()
        assert line, "the guests' program has ended"
        return line.decode().strip()

    def _token(
        self, room: str, identity: str, *, agent: bool = False, attributes: Mapping[str, str] | None = None
    ) -> str:
        return (
            AccessToken(self._server.key, self._server.secret)
            .with_identity(identity)
            .with_kind("agent" if agent else "standard")
            .with_attributes(dict(attributes or {}))
            .with_grants(VideoGrants(room_join=True, room=room))
            .to_jwt()
        )


@contextlib.asynccontextmanager
async def guests(server: LiveKitServer, log: Path) -> AsyncIterator[Guests]:
    with log.open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            *module("guest"),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
        )
    try:
        yield Guests(server, process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            process.kill()
            await process.wait()
