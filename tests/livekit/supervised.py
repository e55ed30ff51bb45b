"""A real supervisor on a real LiveKit server: the daemon's process, its configuration and its doors."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import aiohttp
import yaml

from supervisor.cli.client import Client, NotRunning
from supervisor.cli.documents import Agent, Status
from supervisor.cli.human import Access, Human
from tests.livekit.server import LiveKitServer
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
VOICE = Path(__file__).parent / "agents" / "steady_voice.py"
PACE = 0.05


class Supervised:
    """One daemon and what it supervises.  ``settings`` is merged over the configuration below."""

    def __init__(
        self,
        folder: Path,
        runtime: Path,
        server: LiveKitServer,
        *,
        port: int | None = None,
        agents: list[dict[str, Any]] | None = None,
        **settings: Any,
    ) -> None:
        self.server = server
        self.port = port or free_port()
        self.folder = folder
        self.log = folder / "daemon.log"
        self.config = folder / "config.yaml"
        self.state = folder / "state"
        self.client = Client(runtime / "control.sock")
        self._process: asyncio.subprocess.Process | None = None
        self._settings: dict[str, Any] = {
            "livekit": {"url": server.url, "api_key": server.key, "api_secret": server.secret},
            "agents": agents or [voice()],
            "http": {"listen": f"127.0.0.1:{self.port}"},
            "paths": {"state": str(self.state), "runtime": str(runtime)},
            "log": {"level": "debug", "format": "json"},
            **settings,
        }
        self.write()

    def write(self, **settings: Any) -> None:
        """Write the configuration again, changed in these sections."""
        self._settings.update(settings)
        self.config.parent.mkdir(parents=True, exist_ok=True)
        self.config.write_text(yaml.safe_dump(self._settings))

    # --- the process ---

    @property
    def pid(self) -> int:
        assert self._process is not None, "the daemon is not running"
        return self._process.pid

    async def start(self, *, wait: bool = True, inside: Sequence[str] = ()) -> None:
        """Start it, by that command where there is one, and wait until its agents are ready."""
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *inside,
                sys.executable,
                "-m",
                "supervisor",
                "--config",
                str(self.config),
                "run",
                cwd=ROOT,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
            )
        if wait:
            await self.until(lambda s: all(a["ready"] for a in s["agents"]) and s["livekit"]["up"], 60)

    async def stop(self) -> int:
        """SIGTERM twice, so that no call is waited for; the exit code."""
        assert self._process is not None, "the daemon is not running"
        self._process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.1)
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
        return await self.ended()

    async def kill(self) -> None:
        """SIGKILL to the daemon alone: its workers go on."""
        assert self._process is not None, "the daemon is not running"
        self._process.kill()
        await self.ended()

    async def ended(self, timeout: float = 30) -> int:
        assert self._process is not None, "the daemon is not running"
        async with asyncio.timeout(timeout):
            code = await self._process.wait()
        self._process = None
        return code

    async def close(self) -> None:
        """End everything, also what a killed daemon has left."""
        if self._process is None:
            await self.start(wait=False)
            await self.until(lambda _: True, 20)
        await self.stop()

    # --- its doors ---

    async def status(self) -> Status | None:
        """None while nobody answers."""
        try:
            return await asyncio.to_thread(self.client.status)
        except NotRunning:
            return None

    async def until(self, condition: Callable[[Status], bool], timeout: float) -> Status:
        """Wait until the status fulfils the condition."""
        deadline = asyncio.get_running_loop().time() + timeout
        status = None
        while asyncio.get_running_loop().time() < deadline:
            status = await self.status()
            if status is not None and condition(status):
                return status
            await asyncio.sleep(PACE)
        raise AssertionError(f"not in {timeout} s: {json.dumps(status)}\n{self.tail()}")

    async def agent(self, number: int = 0) -> Agent:
        status = await self.status()
        assert status is not None, self.tail()
        return status["agents"][number]

    async def room(self, name: str) -> dict[str, Any] | None:
        rooms = await asyncio.to_thread(self.client.rooms)
        return next((cast(dict[str, Any], r) for r in rooms["rooms"] if r["name"] == name), None)

    async def conflicts(self) -> list[dict[str, Any]]:
        found = await asyncio.to_thread(self.client.conflicts, None)
        return cast(list[dict[str, Any]], found["conflicts"])

    async def get(self, path: str) -> tuple[int, str]:
        url = f"http://127.0.0.1:{self.port}{path}"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return answer.status, await answer.text()

    async def metric(self, name: str, labels: Mapping[str, str] | None = None) -> float:
        """The sum of all series of that name whose labels include these."""
        _, text = await self.get("/metrics")
        return self.metric_in(text, name, labels)

    @staticmethod
    def metric_in(text: str, name: str, labels: Mapping[str, str] | None = None) -> float:
        """The same, of one scrape: for those that are to be compared."""
        found = re.findall(rf"^livekit_supervisor_{name}(?:{{([^}}]*)}})? (\S+)$", text, re.MULTILINE)
        assert found, f"no series {name}"
        wanted = {f'{key}="{value}"' for key, value in (labels or {}).items()}
        return sum(float(value) for had, value in found if wanted <= set(had.split(",")))

    def tail(self, lines: int = 60) -> str:
        """What the daemon said last."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    # --- people ---

    @property
    def access(self) -> Access:
        return Access(self.server.url, self.server.key, self.server.secret)

    def human(self, room: str, identity: str = "human") -> Human:
        return Human(self.access, room, identity)


def voice(**changes: Any) -> dict[str, Any]:
    """The shipped agent, with its load set."""
    return {
        "id": "agent-66",
        "name": "Agent_66",
        "script": str(VOICE),
        "cwd": str(ROOT),
        "rooms": ["*"],
        "stop": {"drain": "5s", "kill": "3s"},
        "restart": {"initial": "100ms"},
        **changes,
    }
