"""docs/migration.md, typed as it is written: observe beside the old worker, then take over in earnest."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from supervisor.events import EventBus
from supervisor.livekit.api import LiveKitClient
from tests.documents import as_written
from tests.livekit.conftest import MakeServer
from tests.livekit.server import LiveKitServer
from tests.livekit.shell import Shell
from tests.livekit.supervised import ROOT, VOICE, Supervised
from tests.ports import free_port
from tests.scale import SOAK

SCRIPT = f"""
import sys
sys.path.insert(0, {str(VOICE.parent)!r})
from livekit.agents import AgentServer
AgentServer.__init__.__kwdefaults__.update(host="127.0.0.1", port=0)  # other tests run workers, too
from steady_voice import server
"""

UNIT = "/etc/systemd/system/voice-agent.service"


class Old:
    """An old installation in a folder: an agent, its .env file, its unit and the script that starts it."""

    def __init__(self, folder: Path, server: LiveKitServer) -> None:
        self.folder = folder
        self.server = server
        self.unit = folder / "voice-agent.service"
        start = f"cd {ROOT}\n{sys.executable} {folder}/old.py start\n"
        (folder / "old.py").write_text(SCRIPT)
        (folder / ".env").write_text(
            f"LIVEKIT_URL={server.url}\nLIVEKIT_API_KEY={server.key}\nLIVEKIT_API_SECRET={server.secret}\n"
            "VOICE_PRIMARY_AGENT_ID=agent-66\n"
        )
        (folder / "start_voice_agent_safe.sh").write_text(start)
        self.unit.write_text(f"[Service]\nExecStart=/bin/sh {folder}/start_voice_agent_safe.sh\n")

    async def start(self) -> asyncio.subprocess.Process:
        """As the start script would: nobody looks after it.  Registered with LiveKit."""
        log_file = self.folder / "old.log"
        with log_file.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "livekit.agents", "start", str(self.folder / "old.py")),
                cwd=ROOT,
                env={
                    **os.environ,
                    "LIVEKIT_URL": self.server.url,
                    "LIVEKIT_API_KEY": self.server.key,
                    "LIVEKIT_API_SECRET": self.server.secret,
                },
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        async with asyncio.timeout(30):
            while "registered worker" not in log_file.read_text():  # noqa: ASYNC110 - its only sign is its log
                await asyncio.sleep(0.1)
        return process


async def observe(shell: Shell, subject: Supervised, runtime: Path) -> None:
    """Step 2: import, and addresses of this test's own."""
    line = "livekit-supervisor import --observe .env start_voice_agent_safe.sh --output observe.yaml"
    code, out, err = await shell.type(as_written(line))
    assert code == 0, out + err
    subject.config = shell.folder / "observe.yaml"
    with subject.config.open("a") as config:
        config.write(f"http: {{listen: '127.0.0.1:{subject.port}'}}\n")
        config.write(f"paths: {{state: {subject.state}, runtime: {runtime}}}\n")
        config.write("log: {level: debug, format: json}\n")
    as_written("livekit-supervisor --config observe.yaml run")
    await subject.start()


async def in_earnest(shell: Shell, old: Old) -> None:
    """Step 3: the unit is where this test put it."""
    line = f"livekit-supervisor import .env {UNIT} start_voice_agent_safe.sh --output config.yaml"
    code, out, err = await shell.type(as_written(line).replace(UNIT, str(old.unit)))
    assert code == 0, out + err
    code, out, err = await shell.type(as_written("livekit-supervisor --config config.yaml check --online"))
    assert (code, out.startswith("OK: config.yaml: 1 agent")) == (0, True), out + err


@pytest.mark.soak
async def test_observing_beside_the_old_worker_touches_nothing(
    make_livekit_server: MakeServer, tmp_path: Path, runtime_dir: Path
) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/livekit/webhook"
    server = await asyncio.to_thread(make_livekit_server, webhook_urls=(url,))
    subject = Supervised(tmp_path / "daemon", runtime_dir, server, port=port)
    subject.config.unlink()
    shell, old = Shell(subject.folder), Old(subject.folder, server)
    livekit = LiveKitClient(server.url, server.key, server.secret, 5.0, EventBus())
    worker = await old.start()
    try:
        await observe(shell, subject, runtime_dir)
        async with subject.human("lobby") as human:
            human.talk()
            assert await human.wait_settled(30), (subject.folder / "old.log").read_text()
            await _until_state(subject, "healthy")
            before = await dispatches(livekit)
            assert await subject.conflicts() == []
            worker.kill()
            await worker.wait()
            if not SOAK:
                await _ghost_goes(livekit)
            # The human waits: it would dispatch, and only says so.
            await _until_state(subject, "missing_agent", "conflict")
            await _until_reported(subject)
            assert await dispatches(livekit) == before
            assert await subject.metric("dispatches_total", {"outcome": "created"}) == 0
            requests = await subject.metric("livekit_requests_total", {"method": "remove_participant"})
            assert requests == 0
            await _look(shell)
        await in_earnest(shell, old)
    finally:
        if worker.returncode is None:
            worker.kill()
            await worker.wait()
        await livekit.aclose()
        await subject.close()


async def _look(shell: Shell) -> None:
    """Step 2, in the other terminal."""
    for command, code, told in (
        ("diagnose", 1, "missing agent"),
        ("rooms", 1, "lobby"),
        ("conflicts --since 1d", 0, "reported"),
    ):
        typed = await shell.type(as_written(f"livekit-supervisor --config observe.yaml {command}"))
        assert typed[0] == code, typed
        assert told in typed[1], typed


async def dispatches(livekit: LiveKitClient) -> list[str]:
    found = await livekit.list_dispatches("lobby")
    assert isinstance(found, tuple)
    return [dispatch.id for dispatch in found]


async def _ghost_goes(livekit: LiveKitClient) -> None:
    """LiveKit itself needs 20 s to notice; removed by us, who are nobody's supervisor here."""
    found = await livekit.list_participants("lobby")
    assert isinstance(found, tuple)
    for participant in found:
        if participant.is_agent:
            await livekit.remove_participant("lobby", participant.identity)


async def _until_reported(subject: Supervised) -> None:
    found: list[object] = []
    async with asyncio.timeout(40):
        while not found:
            await asyncio.sleep(0.2)
            found = [c for c in await subject.conflicts() if c["resolution"] == "reported"]


async def _until_state(subject: Supervised, *states: str) -> None:
    room = None
    async with asyncio.timeout(40):
        while room is None or room["state"] not in states:
            await asyncio.sleep(0.1)
            room = await subject.room("lobby")
