"""What is done to a call, one thing at a time.

One rule: a signal goes only to a process that proves to be the one meant, and through its pidfd.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from supervisor.cli.client import Client
from supervisor.cli.documents import Agent
from supervisor.cli.errors import CliError, ExitCode
from supervisor.cli.human import Access, Human, JoinFailed
from supervisor.cli.text import plain

if TYPE_CHECKING:
    from livekit import api

AWAY = 1.5
"""Seconds for which the human is gone."""

_API_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class Disturbance:
    name: str
    """What it is called in the summary."""
    key: str
    """And in JSON."""
    announcement: str
    make: Callable[[], Awaitable[float]]
    """Does it, and tells from when on the call should heal (monotonic)."""


class Mischief:
    """The four disturbances of one call."""

    def __init__(self, client: Client, agent: Agent, access: Access, human: Human) -> None:
        self._client = client
        self._agent = agent
        self._access = access
        self._human = human

    def all(self) -> tuple[Disturbance, ...]:
        name = plain(self._agent["name"] or self._agent["id"])
        return (
            Disturbance(
                "second dispatch",
                "second_dispatch",
                f"{name} is dispatched to the room a second time",
                self.dispatch_again,
            ),
            Disturbance(
                "worker killed", "worker_killed", "SIGKILL to the agent's worker process", self.kill_worker
            ),
            Disturbance(
                "LiveKit killed", "livekit_killed", "SIGKILL to the LiveKit server", self.kill_livekit
            ),
            Disturbance(
                "human away",
                "human_returns",
                f"the human leaves and is back after {AWAY:g} s",
                self.leave_and_return,
            ),
        )

    async def dispatch_again(self) -> float:
        from livekit import api

        request = api.CreateAgentDispatchRequest(agent_name=self._agent["name"] or "", room=self._human.room)
        start = time.monotonic()
        async with self._server() as server:
            await server.agent_dispatch.create_dispatch(request)
        return start

    async def kill_worker(self) -> float:
        status = await asyncio.to_thread(self._client.status)
        pid = next((a["pid"] for a in status["agents"] if a["id"] == self._agent["id"]), None)
        if pid is None:
            raise CliError("the agent has no worker process that could be killed", ExitCode.WRONG)
        start = time.monotonic()
        _kill(pid, lambda: self._is_worker(pid))
        return start

    async def kill_livekit(self) -> float:
        answer = await asyncio.to_thread(self._client.command, "dev-server")
        pid = answer.get("pid")
        if not isinstance(pid, int):
            raise CliError("the LiveKit server is not running", ExitCode.WRONG)
        start = time.monotonic()
        _kill(pid, lambda: "livekit-server" in _read(pid, "cmdline").split("\0")[0])
        return start

    async def leave_and_return(self) -> float:
        await self._human.leave()
        await asyncio.sleep(AWAY)
        start = time.monotonic()
        try:
            await self._human.join()
        except JoinFailed as error:
            raise CliError(f"the human could not return: {error}", ExitCode.WRONG) from error
        return start

    async def clean_up(self) -> None:
        """The room has served its purpose.  One that stays is closed by LiveKit itself, a little later."""
        from livekit import api

        with contextlib.suppress(CliError):
            async with self._server() as server:
                await server.room.delete_room(api.DeleteRoomRequest(room=self._human.room))

    @contextlib.asynccontextmanager
    async def _server(self) -> AsyncIterator[api.LiveKitAPI]:
        from aiohttp import ClientError
        from livekit import api

        url = self._access.url.replace("ws", "http", 1)
        try:
            async with (
                asyncio.timeout(_API_TIMEOUT),
                api.LiveKitAPI(url, self._access.api_key, self._access.api_secret) as server,
            ):
                yield server
        except (ClientError, api.TwirpError, TimeoutError) as error:
            raise CliError(f"LiveKit did not do it: {error!r}", ExitCode.WRONG) from error

    def _is_worker(self, pid: int) -> bool:
        return f"LIVEKIT_SUPERVISOR_AGENT_ID={self._agent['id']}" in _read(pid, "environ").split("\0")


def _kill(pid: int, is_meant: Callable[[], bool]) -> None:
    """Identity is looked at while the pidfd holds on to the process: the number cannot be used anew."""
    try:
        handle = os.pidfd_open(pid)
    except OSError as error:
        raise CliError(f"process {pid} could not be killed: {error.strerror}", ExitCode.WRONG) from error
    try:
        if not is_meant():
            raise CliError(f"process {pid} is not the one that was meant; it was left alone", ExitCode.WRONG)
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    finally:
        os.close(handle)


def _read(pid: int, what: str) -> str:
    try:
        return Path(f"/proc/{pid}/{what}").read_text(errors="replace")
    except OSError:
        return ""
