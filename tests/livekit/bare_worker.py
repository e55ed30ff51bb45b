"""A worker that speaks LiveKit's protocol for workers and nothing else: no agent, no framework.

One rule: it gives the answer that the test wants, and remembers what it was offered.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

import aiohttp
from livekit.api import AccessToken, VideoGrants
from livekit.protocol.agent import JobType, ServerMessage, WorkerMessage

from supervisor.core.model import DEFAULT_IDENTITY_PREFIX
from tests.livekit.server import LiveKitServer
from tests.simulation.model_ports import Verdict


class BareWorker:
    """``verdict`` None: it never answers.  ``assigned`` is given the token of what it accepted."""

    def __init__(
        self,
        server: LiveKitServer,
        name: str,
        verdict: Verdict | None,
        assigned: Callable[[str], None],
    ) -> None:
        self.offers: list[str] = []
        self._server = server
        self._name = name
        self._verdict = verdict
        self._assigned = assigned
        self._session: aiohttp.ClientSession | None = None
        self._listening: asyncio.Task[None] | None = None
        self._listed = asyncio.Event()

    async def start(self) -> None:
        """Until jobs can be given to it: LiveKit answers the registration before it lists the worker.

        It reads the next message only afterwards, so that the answer to a ping tells.
        """
        token = AccessToken(self._server.key, self._server.secret).with_grants(VideoGrants(agent=True))
        self._session = aiohttp.ClientSession()
        socket = await self._session.ws_connect(
            f"{self._server.http_url}/agent", headers={"Authorization": f"Bearer {token.to_jwt()}"}
        )
        register = WorkerMessage()
        register.register.type = JobType.JT_ROOM
        register.register.agent_name = self._name
        await socket.send_bytes(register.SerializeToString())
        answer = ServerMessage.FromString(await socket.receive_bytes())
        assert answer.HasField("register"), answer
        self._listening = asyncio.create_task(self._listen(socket))
        ping = WorkerMessage()
        ping.ping.timestamp = time.time_ns() // 1_000_000
        await socket.send_bytes(ping.SerializeToString())
        await asyncio.wait_for(self._listed.wait(), 10.0)

    async def stop(self) -> None:
        """Without a goodbye."""
        if self._listening is not None:
            self._listening.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._listening
        if self._session is not None:
            await self._session.close()

    async def _listen(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for frame in socket:
            message = ServerMessage.FromString(frame.data)
            if message.HasField("availability"):
                self.offers.append(message.availability.job.id)
                if self._verdict is not None:
                    await self._answer(socket, message.availability.job.id, self._verdict)
            elif message.HasField("assignment"):
                self._assigned(message.assignment.token)
            elif message.HasField("pong"):
                self._listed.set()

    async def _answer(self, socket: aiohttp.ClientWebSocketResponse, job_id: str, verdict: Verdict) -> None:
        answer = WorkerMessage()
        answer.availability.job_id = job_id
        answer.availability.available = verdict is Verdict.ACCEPT
        answer.availability.terminate = verdict is Verdict.REJECT
        answer.availability.participant_identity = DEFAULT_IDENTITY_PREFIX + job_id
        await socket.send_bytes(answer.SerializeToString())
