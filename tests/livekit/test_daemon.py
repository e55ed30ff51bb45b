"""The daemon by itself: what it needs, what it says when it does not have it, and what it leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.livekit.conftest import MakeServer
from tests.livekit.server import SECRET, LiveKitServer
from tests.livekit.supervised import ROOT, Supervised, voice
from tests.ports import free_port


@pytest.fixture
def absent_server(tmp_path: Path) -> LiveKitServer:
    """One that has not been started."""
    return LiveKitServer(tmp_path / "absent")


def command(*arguments: str, config: Path) -> list[str]:
    return [sys.executable, "-m", "supervisor", "--config", str(config), *arguments]


async def run(*arguments: str, config: Path, timeout: float = 30) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *command(*arguments, config=config),
        cwd=ROOT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(timeout):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, out.decode(), err.decode()


async def test_livekit_unreachable_is_said_everywhere_and_recovers_by_itself(
    absent_server: LiveKitServer, tmp_path: Path, runtime_dir: Path
) -> None:
    subject = Supervised(tmp_path / "daemon", runtime_dir, absent_server)
    await subject.start(wait=False)
    try:
        status = await subject.until(lambda s: s["livekit"]["error"] is not None, 20)
        assert not status["livekit"]["up"]
        assert any("LiveKit is not reached" in p["message"] for p in status["problems"])
        code, why = await subject.get("/readyz")
        assert (code, "LiveKit is not reached" in why) == (503, True)
        assert (await subject.get("/healthz"))[0] == 200
        assert await subject.metric("livekit_up") == 0
        await asyncio.to_thread(absent_server.start)
        await subject.until(lambda s: s["livekit"]["up"] and all(a["ready"] for a in s["agents"]), 40)
        assert (await subject.get("/readyz"))[0] == 200
    finally:
        await subject.close()
        absent_server.kill()


async def test_a_refused_key_keeps_it_running_and_is_said(
    make_livekit_server: MakeServer, tmp_path: Path, runtime_dir: Path
) -> None:
    server = await asyncio.to_thread(make_livekit_server)
    server.secret = "a-wrong-secret-that-is-long-enough-0123456789"
    subject = Supervised(tmp_path / "daemon", runtime_dir, server)
    await subject.start(wait=False)
    try:
        status = await subject.until(lambda s: s["livekit"]["error"] is not None, 20)
        assert "unauthorized" in (status["livekit"]["error"] or "").lower() or "401" in (
            status["livekit"]["error"] or ""
        )
        assert (await subject.get("/readyz"))[0] == 503
        requests = {"method": "list_rooms", "outcome": "unauthorized"}
        assert await subject.metric("livekit_requests_total", requests) >= 1
    finally:
        await subject.close()


async def test_a_port_in_use_is_one_message_and_exit_code_2(
    absent_server: LiveKitServer, tmp_path: Path, runtime_dir: Path
) -> None:
    subject = Supervised(tmp_path / "daemon", runtime_dir, absent_server)
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", subject.port))
        stranger.listen()
        code, _, err = await run("run", config=subject.config)
    assert code == 2
    told = [line for line in err.splitlines() if not line.startswith("{")]
    assert len(told) == 1
    assert str(subject.port) in told[0]
    assert "Traceback" not in err


async def test_a_second_daemon_exits_with_4_and_touches_nothing(
    absent_server: LiveKitServer, tmp_path: Path, runtime_dir: Path
) -> None:
    subject = Supervised(tmp_path / "daemon", runtime_dir, absent_server)
    await subject.start(wait=False)
    try:
        before = await subject.until(lambda s: s["agents"][0]["pid"] is not None, 20)
        code, _, err = await run("run", config=subject.config)
        assert code == 4
        assert str(before["daemon"]["pid"]) in err
        after = await subject.status()
        assert after is not None
        assert after["agents"][0]["pid"] == before["agents"][0]["pid"]
    finally:
        await subject.close()


@contextlib.asynccontextmanager
async def ready(make: MakeServer, folder: Path, runtime_dir: Path) -> AsyncIterator[Supervised]:
    """One on a server of its own, whose agent can be called."""
    subject = Supervised(folder / "daemon", runtime_dir, await asyncio.to_thread(make))
    await subject.start()
    try:
        yield subject
    finally:
        await subject.close()


async def test_sockets_that_are_cleaned_away_are_there_again(
    make_livekit_server: MakeServer, tmp_path: Path, runtime_dir: Path
) -> None:
    async with ready(make_livekit_server, tmp_path, runtime_dir) as subject:
        before = (await subject.agent())["pid"]
        (runtime_dir / "control.sock").unlink()
        (runtime_dir / "guard.sock").unlink()
        assert await subject.status() is None
        await subject.until(lambda s: s["agents"][0]["ready"] and s["agents"][0]["pid"] == before, 10)
        os.kill(before or 0, signal.SIGKILL)
        # Ready is what the new worker's guard has said.
        await subject.until(lambda s: s["agents"][0]["ready"] and s["agents"][0]["pid"] != before, 30)
        assert "a socket had been removed and is there again" in subject.log.read_text()


async def test_no_secret_is_told_anywhere(
    make_livekit_server: MakeServer, tmp_path: Path, runtime_dir: Path
) -> None:
    async with (
        ready(make_livekit_server, tmp_path, runtime_dir) as subject,
        subject.human("secret") as human,
    ):
        human.talk()
        assert await human.wait_settled(20), subject.tail()
        texts = [
            (await subject.get(path))[1]
            for path in ("/metrics", "/", "/api/status", "/api/rooms", "/api/conflicts", "/readyz")
        ]
        daemon = psutil.Process(subject.pid)
        family = [daemon, *daemon.children(recursive=True)]
        texts += [" ".join(process.cmdline()) for process in family]
    files = [f for f in subject.folder.rglob("*") if f.is_file() and f.name != "config.yaml"]
    texts += [f.read_bytes().decode(errors="replace") for f in files]
    assert len(files) > 3
    assert len(texts) > 12
    assert not [text[:200] for text in texts if SECRET in text]


# --- development mode -----------------------------------------------------------------------------


class Development:
    """``run --dev`` on ports of its own."""

    def __init__(self, folder: Path, runtime: Path) -> None:
        self.port = free_port()
        self.livekit = free_port()
        while self.livekit > 29_990:  # media goes two ports higher
            self.livekit = free_port()
        self.subject = Supervised(
            folder,
            runtime,
            LiveKitServer(folder / "unused"),
            agents=[voice(script=str(ROOT / "agent/voice.py"))],
        )
        self.subject.write(
            livekit={
                "url": f"ws://127.0.0.1:{self.livekit}",
                "api_key": "devkey",
                "api_secret": SECRET,
            }
        )

    def start(self) -> subprocess.Popen[bytes]:
        with self.subject.log.open("ab") as log:
            return subprocess.Popen(
                command("run", "--dev", config=self.subject.config),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def family(self) -> list[psutil.Process]:
        mark = str(self.subject.state)
        found = []
        for process in psutil.process_iter():
            try:
                if mark in process.environ().get("LIVEKIT_SUPERVISOR_STATE", ""):
                    found.append(process)
            except psutil.Error:
                continue
        return found


async def test_ctrl_c_in_development_ends_all_of_it_within_10_seconds(
    tmp_path: Path, runtime_dir: Path
) -> None:
    development = Development(tmp_path / "dev", runtime_dir)
    subject = development.subject
    daemon = development.start()
    await subject.until(lambda s: s["livekit"]["up"] and all(a["ready"] for a in s["agents"]), 60)
    status = await subject.status()
    assert status is not None
    assert status["daemon"]["mode"] == "development"
    started = asyncio.get_running_loop().time()
    daemon.send_signal(signal.SIGINT)
    code = await asyncio.to_thread(daemon.wait, 20)
    assert code == 0, subject.tail()
    assert asyncio.get_running_loop().time() - started < 10
    assert development.family() == []
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", development.livekit)) != 0


async def test_after_a_crash_the_next_one_takes_the_development_server_over(
    tmp_path: Path, runtime_dir: Path
) -> None:
    development = Development(tmp_path / "dev", runtime_dir)
    subject = development.subject
    daemon = development.start()
    try:
        before = await subject.until(
            lambda s: s["livekit"]["up"] and all(a["ready"] for a in s["agents"]), 60
        )
        server = await asyncio.to_thread(subject.client.command, "dev-server")
        daemon.kill()
        await asyncio.to_thread(daemon.wait, 10)
        daemon = development.start()
        after = await subject.until(lambda s: s["livekit"]["up"] and all(a["ready"] for a in s["agents"]), 60)
        assert await asyncio.to_thread(subject.client.command, "dev-server") == server
        assert after["agents"][0]["pid"] == before["agents"][0]["pid"]
    finally:
        daemon.send_signal(signal.SIGINT)
        await asyncio.to_thread(daemon.wait, 20)
    assert development.family() == []


async def test_a_stranger_on_the_development_servers_port_is_one_message(
    tmp_path: Path, runtime_dir: Path
) -> None:
    development = Development(tmp_path / "dev", runtime_dir)
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", development.livekit))
        stranger.listen()
        code, _, err = await run("run", "--dev", config=development.subject.config)
    assert code == 2
    told = [line for line in err.splitlines() if not line.startswith("{")]
    assert len(told) == 1
    assert f"port {development.livekit}" in told[0]
    assert str(os.getpid()) in told[0]
    assert development.family() == []


async def test_development_needs_a_server_on_loopback(tmp_path: Path, runtime_dir: Path) -> None:
    development = Development(tmp_path / "dev", runtime_dir)
    settings = yaml.safe_load(development.subject.config.read_text())
    settings["livekit"]["url"] = "wss://livekit.example.com"
    development.subject.config.write_text(yaml.safe_dump(settings))
    code, _, err = await run("run", "--dev", config=development.subject.config)
    assert code == 2
    assert "without --dev" in err
    assert "Traceback" not in err


@pytest.mark.timeout(120)
async def test_heartbeats_made_shorter_by_a_reload_cost_no_worker_and_no_call(
    make_livekit_server: MakeServer, tmp_path: Path, runtime_dir: Path
) -> None:
    """Guards go on in the old rhythm until they have heard of the new one."""
    server = await asyncio.to_thread(make_livekit_server)

    def beating(interval: str, timeout: str) -> list[dict[str, Any]]:
        return [
            voice(heartbeat={"interval": interval, "timeout": timeout}, stop={"drain": "0s", "kill": "1s"})
        ]

    subject = Supervised(tmp_path / "daemon", runtime_dir, server, agents=beating("4s", "30s"))
    await subject.start()
    try:
        async with subject.human("room") as human:
            human.talk()
            assert await human.wait_settled(20), subject.tail()
            before = await subject.agent()
            subject.write(agents=beating("300ms", "2s"))
            await asyncio.to_thread(subject.client.command, "reload")
            assert await human.wait_settled(20, steady=7.0), subject.tail()
            assert (await subject.agent())["pid"] == before["pid"], subject.tail()
            assert await subject.metric("agent_restarts_total") == 0
        os.kill(before["pid"] or 0, signal.SIGSTOP)
        await subject.until(lambda s: s["agents"][0]["pid"] not in (None, before["pid"]), 20)
        assert await subject.metric("agent_restarts_total", {"reason": "hung"}) == 1
    finally:
        await subject.close()
