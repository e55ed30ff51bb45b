"""A guarded worker as a real process, and a peer that plays the daemon's part of the guard protocol."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, TypeVar

from livekit import api

from tests.livekit.server import LiveKitServer

AGENT = Path(__file__).parents[2] / "agent"
AGENT_ID = "agent-under-test"
INSTANCE = "test-instance"

Wire = dict[str, object]
T = TypeVar("T")


@dataclass(eq=False)
class Peer:
    """One connection of a guard, and all that it said."""

    hello: Wire
    writer: asyncio.StreamWriter
    said: list[Wire] = field(default_factory=list)
    gone: bool = False

    @property
    def role(self) -> object:
        return self.hello["role"]

    def send(self, **message: object) -> None:
        self.writer.write(json.dumps(message).encode() + b"\n")

    def heard(self, kind: str, **fields: object) -> list[Wire]:
        return [m for m in self.said if m["type"] == kind and all(m.get(k) == v for k, v in fields.items())]


class StandInDaemon:
    """Listens as the daemon would.  ``answers`` decides each request; None leaves it without an answer."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.peers: list[Peer] = []
        self.answers: Callable[[Wire], Wire | None] = lambda request: {"outcome": "granted", "epoch": 1}
        self.hold: Callable[[Wire], bool] = lambda hello: True
        self.human_return_grace = 15.0
        self._server: asyncio.Server | None = None
        self._changed = asyncio.Event()
        self._serving: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._open = False

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        self.path.unlink(missing_ok=True)
        self._open = True
        self._server = await asyncio.start_unix_server(self._accept, self.path)

    async def stop(self) -> None:
        self._open = False
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._serving.values():  # of those, too, that have not said who they are
            writer.close()
        if self._serving:
            await asyncio.wait(self._serving, timeout=2)
        self.path.unlink(missing_ok=True)

    async def until(self, look: Callable[[], T | None], timeout: float = 15.0) -> T:
        """What ``look`` finds, looked for at every message."""
        deadline = time.monotonic() + timeout
        while not (found := look()):
            left = deadline - time.monotonic()
            assert left > 0, f"not in time; heard: {[(p.role, p.said) for p in self.peers]}"
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), min(left, 0.1))
        return found

    def worker(self) -> Peer | None:
        return next((p for p in reversed(self.peers) if p.role == "worker" and not p.gone), None)

    def jobs(self) -> list[Peer]:
        return [p for p in self.peers if p.role == "job" and not p.gone]

    def requests(self) -> list[Wire]:
        return [m for p in self.peers for m in p.heard("request")]

    async def registered(self, timeout: float = 40.0) -> Peer:
        def look() -> Peer | None:
            worker = self.worker()
            return worker if worker is not None and worker.heard("registered") else None

        return await self.until(look, timeout)

    async def job(self, timeout: float = 15.0, *, joined: bool = True, room: str = "") -> Peer:
        """The first job; with ``room`` that room's: those of earlier tests may still be there."""

        def look() -> Peer | None:
            jobs = (j for j in self.jobs() if not room or j.hello["room"] == room)
            return next((j for j in jobs if not joined or j.heard("joined")), None)

        return await self.until(look, timeout)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if not self._open:  # it came while we stopped
            writer.close()
            return
        self._serving[task] = writer
        task.add_done_callback(self._serving.pop)
        try:
            line = await reader.readline()
            if not line:
                return
            peer = Peer(json.loads(line), writer)
            self.peers.append(peer)
            peer.send(**self._welcome(peer.hello))
            self._changed.set()
            while line := await reader.readline():
                self._heard(peer, json.loads(line))
            peer.gone = True
        except (OSError, ValueError):
            pass
        finally:
            writer.close()
            self._changed.set()

    def _heard(self, peer: Peer, message: Wire) -> None:
        peer.said.append(message)
        if message["type"] == "request":
            answer = self.answers(message)
            if answer is not None:
                peer.send(type="answer", id=message["id"], **answer)
        self._changed.set()

    def _welcome(self, hello: Wire) -> Wire:
        welcome: Wire = {
            "type": "welcome",
            "v": 1,
            "instance": INSTANCE,
            "heartbeat": {"interval": 0.5, "timeout": 5},
            "human_return_grace": self.human_return_grace,
            "reconnect_grace": 5,
        }
        if hello["role"] == "job":
            hold = self.hold(hello)
            welcome |= {"hold": hold, "epoch": 1 if hold else 0}
        return welcome


class GuardedWorker:
    """``python -m agent_guard SCRIPT start``, as the daemon starts it."""

    def __init__(
        self,
        script: Path,
        socket: Path,
        server: LiveKitServer | None,
        *,
        name: str | None = None,
        arguments: tuple[str, ...] = ("start",),
        environ: Mapping[str, str] | None = None,
        keep_fd: int | None = None,
        python: str = sys.executable,
    ) -> None:
        self.socket = socket
        self.log = script.parent / f"{script.stem}.{time.monotonic_ns()}.log"
        guard = {"agent_name": name, "dev": True, "human_return_grace": 15, "heartbeat_interval": 0.5}
        self._environ = {
            **os.environ,
            "PYTHONPATH": str(AGENT),
            "PYTHONSAFEPATH": "1",
            "PYTHONUNBUFFERED": "1",
            "LIVEKIT_SUPERVISOR_AGENT_ID": AGENT_ID,
            "LIVEKIT_SUPERVISOR_STATE": str(script.parent),
            "LIVEKIT_SUPERVISOR_SOCKET": str(socket),
            "LIVEKIT_SUPERVISOR_INSTANCE": INSTANCE,
            "LIVEKIT_SUPERVISOR_GUARD": json.dumps(guard),
            **(environ or {}),
        }
        if server is not None:
            self._environ |= {
                "LIVEKIT_URL": server.url,
                "LIVEKIT_API_KEY": server.key,
                "LIVEKIT_API_SECRET": server.secret,
            }
        if keep_fd is not None:
            self._environ["LIVEKIT_SUPERVISOR_LOCK_FD"] = str(keep_fd)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [python, "-m", "agent_guard", str(script), *arguments],
                cwd=script.parent,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=() if keep_fd is None else (keep_fd,),
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """The worker, its forkserver and its jobs, which share its process group."""
        if self.process.poll() is None or self._group_lives():
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=10)

    def lines(self, message: str) -> list[dict[str, object]]:
        """The worker's structured log lines with this message."""
        found = []
        for line in self.log.read_text(errors="replace").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and entry.get("message") == message:
                found.append(entry)
        return found

    def _group_lives(self) -> bool:
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return False
        return True


async def eventually(look: Callable[[], Awaitable[T]], timeout: float = 10.0) -> T:
    """What ``look`` finds at last; for what announces itself to nobody."""
    deadline = time.monotonic() + timeout
    while not (found := await look()):
        assert time.monotonic() < deadline, "not in time"
        await asyncio.sleep(0.03)
    return found


def server_api(server: LiveKitServer) -> api.LiveKitAPI:
    return api.LiveKitAPI(server.http_url, server.key, server.secret)


async def dispatch(livekit: api.LiveKitAPI, room: str, name: str) -> str:
    request = api.CreateAgentDispatchRequest(agent_name=name, room=room)
    return (await livekit.agent_dispatch.create_dispatch(request)).id


async def participants(livekit: api.LiveKitAPI, room: str) -> list[api.ParticipantInfo]:
    listed = await livekit.room.list_participants(api.ListParticipantsRequest(room=room))
    return [p for p in listed.participants if p.state != api.ParticipantInfo.State.DISCONNECTED]


async def agents(livekit: api.LiveKitAPI, room: str) -> list[api.ParticipantInfo]:
    everyone = await participants(livekit, room)
    return [p for p in everyone if p.kind == api.ParticipantInfo.Kind.AGENT]


async def nobody(
    who: Callable[[api.LiveKitAPI, str], Awaitable[list[api.ParticipantInfo]]],
    livekit: api.LiveKitAPI,
    room: str,
) -> bool:
    """Whoever has left may be listed for a moment more."""
    return await who(livekit, room) == []
