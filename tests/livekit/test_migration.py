"""docs/migration.md, step 2: an imported set-up observes beside the old worker, and touches nothing."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from supervisor.cli.importing import import_files, write
from supervisor.events import EventBus
from supervisor.livekit.api import LiveKitClient
from tests.livekit.conftest import MakeServer
from tests.livekit.server import LiveKitServer
from tests.livekit.supervised import ROOT, VOICE, Supervised
from tests.ports import free_port

SCRIPT = f"""
import sys
sys.path.insert(0, {str(VOICE.parent)!r})
from livekit.agents import AgentServer
AgentServer.__init__.__kwdefaults__.update(host="127.0.0.1", port=0)  # other tests run workers, too
from steady_voice import server
"""


async def old_worker(server: LiveKitServer, folder: Path) -> asyncio.subprocess.Process:
    """As a start script would have it: nobody looks after it.  Registered with LiveKit."""
    (folder / "old.py").write_text(SCRIPT)
    log_file = folder / "old.log"
    with log_file.open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "livekit.agents", "start", str(folder / "old.py")),
            cwd=ROOT,
            env={
                **os.environ,
                "LIVEKIT_URL": server.url,
                "LIVEKIT_API_KEY": server.key,
                "LIVEKIT_API_SECRET": server.secret,
            },
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    async with asyncio.timeout(30):
        while "registered worker" not in log_file.read_text():  # noqa: ASYNC110 - its only sign is its log
            await asyncio.sleep(0.1)
    return process


def observe(subject: Supervised, server: LiveKitServer, runtime: Path) -> None:
    """``import --observe`` of an .env file and a start script, and addresses of this test's own."""
    folder = subject.folder
    (folder / ".env").write_text(
        f"LIVEKIT_URL={server.url}\nLIVEKIT_API_KEY={server.key}\nLIVEKIT_API_SECRET={server.secret}\n"
        "VOICE_PRIMARY_AGENT_ID=agent-66\n"
    )
    (folder / "start_safe.sh").write_text(f"cd {ROOT}\n{sys.executable} {folder.parent}/old.py start\n")
    subject.config.unlink()
    imported = import_files(
        [folder / ".env", folder / "start_safe.sh"], {}, output=subject.config, observe=True
    )
    write(subject.config, imported)
    with subject.config.open("a") as config:
        config.write(f"http: {{listen: '127.0.0.1:{subject.port}'}}\n")
        config.write(f"paths: {{state: {subject.state}, runtime: {runtime}}}\n")
        config.write("log: {level: debug, format: json}\n")


async def dispatches(server: LiveKitServer, room: str) -> list[str]:
    client = LiveKitClient(server.url, server.key, server.secret, 5.0, EventBus())
    try:
        found = await client.list_dispatches(room)
    finally:
        await client.aclose()
    assert isinstance(found, tuple)
    return [dispatch.id for dispatch in found]


async def test_observing_beside_the_old_worker_touches_nothing(
    make_livekit_server: MakeServer, tmp_path: Path, runtime_dir: Path
) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/livekit/webhook"
    server = await asyncio.to_thread(make_livekit_server, webhook_urls=(url,))
    subject = Supervised(tmp_path / "daemon", runtime_dir, server, port=port)
    observe(subject, server, runtime_dir)
    old = await old_worker(server, tmp_path)
    try:
        await subject.start()
        async with subject.human("lobby") as human:
            human.talk()
            assert await human.wait_settled(30), (tmp_path / "old.log").read_text()
            await _until_state(subject, "healthy")
            before = await dispatches(server, "lobby")
            assert await subject.conflicts() == []
            old.kill()
            await old.wait()
            # The human waits: it would dispatch, and only says so.
            await _until_state(subject, "missing_agent", "conflict")
            await _until_reported(subject)
            assert await dispatches(server, "lobby") == before
            assert await subject.metric("dispatches_total", {"outcome": "created"}) == 0
            requests = await subject.metric("livekit_requests_total", {"method": "remove_participant"})
            assert requests == 0
    finally:
        if old.returncode is None:
            old.kill()
            await old.wait()
        await subject.close()


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
