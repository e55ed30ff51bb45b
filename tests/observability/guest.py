"""An agent from elsewhere, as a process of its own: it may be thrown out before it has quite joined."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from livekit.api import AccessToken, VideoGrants

from tests.livekit import bare_guest
from tests.livekit.server import LiveKitServer


@contextlib.asynccontextmanager
async def agent_guest(server: LiveKitServer, room: str, attributes: Mapping[str, str]) -> AsyncIterator[None]:
    token = AccessToken(server.key, server.secret).with_identity("stranger").with_kind("agent")
    token = token.with_attributes(dict(attributes))
    token = token.with_grants(VideoGrants(room_join=True, room=room))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        Path(bare_guest.__file__),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdin is not None
    process.stdin.write(f"{server.url}\n{token.to_jwt()}\n".encode())
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):  # thrown out before it had joined, it ended by itself
            process.kill()
        await process.wait()
