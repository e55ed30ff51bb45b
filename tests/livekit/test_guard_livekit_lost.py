"""The worker's connection to LiveKit: its loss is told within moments, and jobs outlive it."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent_guard.look import LOOK_TIMEOUT, LookFailed, agents_in
from tests.livekit.conftest import MakeServer
from tests.livekit.guarded import GuardedWorker, StandInDaemon, agents, dispatch, server_api
from tests.livekit.server import SECRET, LiveKitServer
from tests.livekit.supervised import Supervised, voice

SCRIPT = """
from livekit.agents import AgentServer, JobContext, cli

server = AgentServer(max_retry=2)

@server.rtc_session(agent_name="mine")
async def entrypoint(ctx: JobContext) -> None:
    await ctx.connect()

if __name__ == "__main__":
    cli.run_app(server)
"""


@pytest.fixture
async def daemon(runtime_dir: Path) -> AsyncIterator[StandInDaemon]:
    async with StandInDaemon(runtime_dir / "guard.sock") as daemon:
        yield daemon


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


async def _start(make: MakeServer) -> LiveKitServer:
    return await asyncio.to_thread(make)


async def test_a_restart_of_livekit_is_told_and_the_job_goes_on(
    daemon: StandInDaemon, script: Path, make_livekit_server: MakeServer
) -> None:
    server = await _start(make_livekit_server)
    with GuardedWorker(script, daemon.path, server):
        guard = await daemon.registered()
        async with server_api(server) as livekit:
            await dispatch(livekit, "room", "mine")
            job = await daemon.job()
        server.kill()
        await daemon.until(lambda: guard.heard("unregistered"), timeout=2)
        await asyncio.to_thread(server.start)
        await daemon.until(lambda: guard.heard("registered")[1:])
        await daemon.until(lambda: job.heard("joined")[1:])
        async with server_api(server) as livekit:
            assert [a.identity for a in await agents(livekit, "room")] == [job.hello["identity"]]
        assert job.heard("goodbye") == []


async def test_a_worker_that_gave_up_on_livekit_says_that_this_was_why(
    daemon: StandInDaemon, script: Path, make_livekit_server: MakeServer
) -> None:
    server = await _start(make_livekit_server)
    with GuardedWorker(script, daemon.path, server) as worker:
        guard = await daemon.registered()
        server.kill()
        await daemon.until(lambda: guard.heard("goodbye", reason="livekit_lost"), timeout=20)
        assert await asyncio.to_thread(worker.process.wait, 20) == 69
        assert guard.heard("failed") == []


async def test_a_worker_that_livekit_never_registered_says_so(
    daemon: StandInDaemon, script: Path, make_livekit_server: MakeServer
) -> None:
    server = await _start(make_livekit_server)
    server.kill()
    with GuardedWorker(script, daemon.path, server) as worker:
        await daemon.until(lambda: [m for p in daemon.peers for m in p.heard("unregistered")], timeout=30)
        assert await asyncio.to_thread(worker.process.wait, 20) == 69


async def test_a_key_that_livekit_refuses_is_told_to_the_operator(
    script: Path, make_livekit_server: MakeServer, tmp_path: Path, runtime_dir: Path
) -> None:
    """One that the script has of its own: the daemon's is right, and shows nothing of it."""
    server = await _start(make_livekit_server)
    own = 'import os\n\nos.environ["LIVEKIT_API_SECRET"] = "x" * 32\n'
    await asyncio.to_thread(script.write_text, own + SCRIPT)
    agent = voice(script=str(script), cwd=str(tmp_path))
    daemon = Supervised(tmp_path / "daemon", runtime_dir, server, agents=[agent])
    reason = "LiveKit answered 401: the API key or secret is refused"
    try:
        await daemon.start(wait=False)
        status = await daemon.until(lambda s: reason in (s["agents"][0]["reason"] or ""), 30)
        assert status["livekit"]["up"]
        assert [p["message"] for p in status["problems"]] == [f"starting: {reason}"]
    finally:
        await daemon.close()


async def test_a_server_that_is_not_there_is_told_too(
    daemon: StandInDaemon, script: Path, make_livekit_server: MakeServer
) -> None:
    server = await _start(make_livekit_server)
    server.kill()
    with GuardedWorker(script, daemon.path, server):
        told = await daemon.until(lambda: [m for p in daemon.peers for m in p.heard("unregistered")], 30)
    assert str(told[0]["error"]).startswith("LiveKit is not reached: ")
    assert "connect" in str(told[0]["error"]).lower()


async def test_a_look_that_gets_no_answer_fails_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVEKIT_API_KEY", "key")
    monkeypatch.setenv("LIVEKIT_API_SECRET", SECRET)
    with socket.create_server(("127.0.0.1", 0)) as black_hole:
        monkeypatch.setenv("LIVEKIT_URL", f"ws://127.0.0.1:{black_hole.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(LookFailed, match="in time"):
            await agents_in("room")
        assert time.monotonic() - start < LOOK_TIMEOUT + 0.2
    with pytest.raises(LookFailed):
        await agents_in("room")
