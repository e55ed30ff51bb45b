"""A server, a relay for its webhooks and a supervised daemon, up and running together.

One rule: what was opened here is closed here, whatever was killed in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
from livekit import api

from supervisor.cli.human import Human
from tests import leaks
from tests.livekit.relay import Relay
from tests.livekit.server import LiveKitServer
from tests.livekit.supervised import Supervised, voice
from tests.ports import free_port

AGENTS = Path(__file__).parent / "agents"
NAME = "Agent_66"
SOON = 60.0
"""Seconds; two shared cores need 5 to start a worker."""

_API_TIMEOUT = aiohttp.ClientTimeout(total=10.0)


class Stand:
    """``daemon`` with the agents given, on ``server``, whose webhooks go through ``relay``."""

    def __init__(self, folder: Path, runtime: Path, agents: list[dict[str, Any]], **settings: Any) -> None:
        port = free_port()
        self.relay = Relay(f"http://127.0.0.1:{port}/livekit/webhook")
        self.server = LiveKitServer(folder / "livekit", webhook_urls=(self.relay.url,))
        self.daemon = Supervised(
            folder / "daemon", runtime, self.server, port=port, agents=agents, **settings
        )
        self.folder = folder
        self._session: aiohttp.ClientSession | None = None
        self._livekit: api.LiveKitAPI | None = None

    async def start(self) -> None:
        self._session = aiohttp.ClientSession(timeout=_API_TIMEOUT)
        self._livekit = api.LiveKitAPI(
            self.server.http_url, self.server.key, self.server.secret, session=self._session
        )
        await self.relay.start()
        await asyncio.to_thread(self.server.start)
        await self.daemon.start()

    async def close(self) -> None:
        await self.daemon.close()
        await asyncio.to_thread(self.server.kill)
        await self.relay.stop()
        if self._session is not None:
            await self._session.close()

    @property
    def livekit(self) -> api.LiveKitAPI:
        assert self._livekit is not None, "it has not been started"
        return self._livekit

    def human(self, room: str, identity: str = "human", *, asks_for: str = NAME) -> Human:
        """Comes with a token that asks for the agent, as an application's would."""
        return Human(self.daemon.access, room, identity, dispatch=(asks_for,))

    async def dispatch(self, room: str, name: str = NAME) -> str:
        request = api.CreateAgentDispatchRequest(agent_name=name, room=room)
        return (await self.livekit.agent_dispatch.create_dispatch(request)).id

    async def dispatches(self, room: str) -> list[str]:
        """Those that ask for somebody: LiveKit gives every room one without a name as well."""
        listed = await self.livekit.agent_dispatch.list_dispatch(room)
        return [dispatch.id for dispatch in listed if dispatch.agent_name]

    async def agents_in(self, room: str) -> list[str]:
        listed = await self.livekit.room.list_participants(api.ListParticipantsRequest(room=room))
        return [p.identity for p in listed.participants if p.kind == api.ParticipantInfo.Kind.AGENT]

    async def tell_agent(self, room: str, topic: str, text: str) -> None:
        """Data from the application's server to everybody in the room."""
        request = api.SendDataRequest(
            room=room, data=text.encode(), topic=topic, kind=api.DataPacket.Kind.RELIABLE
        )
        await self.livekit.room.send_data(request)

    async def end(self, room: str) -> None:
        with contextlib.suppress(api.TwirpError):
            await self.livekit.room.delete_room(api.DeleteRoomRequest(room=room))

    def printed(self, agent_id: str) -> str:
        """By that agent's worker and its jobs."""
        return (self.daemon.state / "logs" / f"{agent_id}.log").read_text(errors="replace")

    @contextlib.asynccontextmanager
    async def unguarded_worker(self, name: str = NAME) -> AsyncIterator[asyncio.subprocess.Process]:
        """A worker of that name that nobody supervises; its output is in ``unguarded.log``."""
        environment = {
            **os.environ,
            "BARE_AGENT_NAME": name,
            "LIVEKIT_URL": self.server.url,
            "LIVEKIT_API_KEY": self.server.key,
            "LIVEKIT_API_SECRET": self.server.secret,
        }
        path = self.folder / "unguarded.log"
        with path.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                str(AGENTS / "bare_voice.py"),
                "start",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        try:
            await becomes(partial(_says, path, "registered worker"))
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            await process.wait()


async def _says(path: Path, words: str) -> bool:
    return words in await asyncio.to_thread(path.read_text, errors="replace")


async def becomes(condition: Callable[[], Awaitable[bool]], within: float = SOON, what: str = "") -> None:
    """Wait until that is so; there is no edge to wait for in what another process shows."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    while not await condition():
        assert loop.time() < deadline, f"not within {within:g} s: {what or condition}"
        await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def standing(folder: Path, *agents: dict[str, Any], **settings: Any) -> AsyncIterator[Stand]:
    """A stand with these agents, by default the steady one; gone afterwards, its tasks included."""
    with tempfile.TemporaryDirectory(prefix=f"{leaks.RUN}-", dir="/tmp") as runtime:
        stand = Stand(folder, Path(runtime), list(agents) or [voice()], **settings)
        try:
            await stand.start()
            yield stand
        finally:
            await stand.close()
