"""What chaos befalls: a stand with two guarded workers of one name, and callers who talk and listen.

One rule: nothing here judges; it makes things happen and tells what is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
from livekit import api

from supervisor.cli.client import NotRunning
from supervisor.cli.human import Human, JoinFailed
from tests.livekit.stand import AGENTS, Stand, standing
from tests.livekit.supervised import voice

SCRIPT = AGENTS / "fragile_voice.py"
AGENT_IDS = ("one", "two")
ROOMS = ("red", "green", "blue")

HEARTBEAT = 4.0
KILL = 1.0
RESYNC = 4.0
GRACE = 5.0
"""Seconds for which a job waits for its human to return."""
PATIENT = 60.0
"""Seconds that a step of our own may take, however busy the machine is."""

UNREACHABLE = (api.TwirpError, aiohttp.ClientError, TimeoutError)


class World:
    """``patience``: how many times as long as on a quiet machine everything may take."""

    def __init__(self, stand: Stand, patience: float) -> None:
        self.stand = stand
        self.patience = patience
        self.humans = {room: stand.human(room, f"{room}-caller") for room in ROOMS}

    @property
    def daemon_pid(self) -> int:
        return self.stand.daemon.pid

    async def begin(self) -> None:
        for human in self.humans.values():
            human.talk()
            await comes(human)

    async def end(self) -> None:
        for human in self.humans.values():
            await human.leave()

    # --- the daemon ---

    async def kill_daemon(self) -> None:
        await self.stand.daemon.kill()

    async def command(self, name: str, **arguments: object) -> None:
        """Asked again while the daemon has no time to answer."""
        deadline = now() + PATIENT
        while True:
            try:
                await asyncio.to_thread(self.stand.daemon.client.command, name, arguments)
            except NotRunning:
                if now() > deadline:
                    raise
            else:
                return

    async def hand_over(self) -> None:
        await self.command("handoff")
        await self.stand.daemon.ended(PATIENT)

    async def start_daemon(self) -> None:
        """Until it answers; what it supervises may have to wait for LiveKit."""
        await self.stand.daemon.start(wait=False)
        await self.stand.daemon.until(lambda _: True, PATIENT)

    # --- workers ---

    def workers(self) -> dict[str, list[int]]:
        """The live worker processes of each agent ID, as the kernel has them."""
        found: dict[str, list[int]] = {agent: [] for agent in AGENT_IDS}
        state = f"LIVEKIT_SUPERVISOR_STATE={self.stand.daemon.state}".encode()
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal() and b"agent_guard" in _read(entry / "cmdline"):
                environment = _read(entry / "environ").split(b"\0")
                for agent in AGENT_IDS:
                    if (
                        state in environment
                        and f"LIVEKIT_SUPERVISOR_AGENT_ID={agent}".encode() in environment
                    ):
                        found[agent].append(int(entry.name))
        return {agent: _without_children(pids) for agent, pids in found.items()}

    def signal_worker(self, agent: str, number: signal.Signals) -> bool:
        """False when it has none at the moment."""
        pids = self.workers()[agent]
        for pid in pids:
            send(pid, number)
        return bool(pids)

    # --- LiveKit ---

    async def break_job(self, room: str, how: str) -> bool:
        with contextlib.suppress(*UNREACHABLE):
            await self.stand.tell_agent(room, "break", how)
            return True
        return False

    async def dispatch(self, room: str) -> bool:
        with contextlib.suppress(*UNREACHABLE):
            await self.stand.dispatch(room)
            return True
        return False


@contextlib.asynccontextmanager
async def world(folder: Path, patience: float) -> AsyncIterator[World]:
    agents = [
        voice(
            id=agent,
            script=str(SCRIPT),
            heartbeat={"interval": "500ms", "timeout": f"{HEARTBEAT}s"},
            stop={"drain": "2s", "kill": f"{KILL}s"},
            # A worker that chaos kills time and again is no worker that crashes.
            restart={"initial": "100ms", "max": "500ms", "stable_after": "1s"},
        )
        for agent in AGENT_IDS
    ]
    rooms = {"resync": f"{RESYNC}s", "human_return_grace": f"{GRACE}s"}
    async with standing(folder, *agents, rooms=rooms) as stand:
        here = World(stand, patience)
        await here.begin()
        try:
            yield here
        finally:
            await here.end()


async def comes(human: Human, identity: str | None = None) -> None:
    """Whatever LiveKit is going through."""
    while not human.connected:
        with contextlib.suppress(JoinFailed):
            await human.rejoin(identity)


def _without_children(pids: list[int]) -> list[int]:
    """A program that the worker starts is its image for a moment, between fork and exec."""
    parents = {pid: _parent(pid) for pid in pids}
    return [pid for pid, parent in parents.items() if parent is not None and parent not in parents]


def _parent(pid: int) -> int | None:
    """None of one that is not alive; a zombie is not."""
    state, *rest = _read(Path(f"/proc/{pid}/stat")).rpartition(b")")[2].split() or [b"X"]
    return None if state in (b"Z", b"X") else int(rest[0])


def send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def now() -> float:
    return time.monotonic()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
