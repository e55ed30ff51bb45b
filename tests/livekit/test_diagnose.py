"""``diagnose`` on a real LiveKit server and a real daemon: all is well; what is not, and what mends it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from supervisor.livekit.inspection import Inspection
from tests.livekit.conftest import MakeServer
from tests.livekit.server import LiveKitServer
from tests.livekit.supervised import ROOT, Supervised, voice
from tests.ports import free_port

Findings = list[dict[str, Any]]


async def diagnose(subject: Supervised, *arguments: str) -> tuple[int, Findings]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "supervisor", "--config", str(subject.config), "diagnose", "--json"),
        *arguments,
        cwd=ROOT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert b"Traceback" not in err, err.decode()
    return process.returncode or 0, json.loads(out)["findings"]


def of(findings: Findings, area: str, *severities: str) -> Findings:
    return [f for f in findings if f["area"] == area and f["severity"] in severities]


def told(findings: Findings) -> str:
    return "\n".join(f"{f['severity']} {f['area']}: {f['message']} {f['evidence']}" for f in findings)


def with_settings(server: LiveKitServer, **changes: Any) -> None:
    """Start a server again, with other settings than the development server has."""
    server.stop()
    file = server.log.with_name("livekit-server.yaml")
    config = {**yaml.safe_load(file.read_text()), **changes}
    file.write_text(yaml.safe_dump(config))
    server.start()


@pytest.fixture
def hasty(tmp_path: Path) -> dict[str, Any]:
    """The agent with a Python that says at once that it has livekit-agents: each diagnosis asks it."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\n[ "$1" = -I ] && exec echo 1.8.9\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return voice(python=str(python))


async def test_all_is_well(make_livekit_server: MakeServer, tmp_path: Path, runtime_dir: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/livekit/webhook"
    server = await asyncio.to_thread(make_livekit_server, webhook_urls=(url,))
    subject = Supervised(tmp_path / "daemon", runtime_dir, server, port=port)
    subject.config.chmod(0o600)
    await subject.start()
    try:
        async with subject.human("lobby") as human:
            human.talk()
            assert await human.wait_settled(20), subject.tail()
            code, findings = await diagnose(subject, "--probe")
        assert code == 0, told(findings)
        assert not [f for f in findings if f["severity"] == "error"]
        messages = told(findings)
        for expected in (
            "ok daemon: the daemon answers",
            "ok processes: agent-66 has exactly one worker",
            "ok processes: no second process for any agent",
            "ok livekit: livekit-server 1.13.5, workers can register",
            "ok livekit: the clocks agree",
            "ok livekit: LiveKit reads participants from live memory",
            "ok livekit: webhooks arrive",
            "ok livekit: rooms stay open long enough",
            "ok rooms: ",
        ):
            assert expected in messages, messages
        await _look_at_a_rogue(subject)
    finally:
        await subject.close()


async def _look_at_a_rogue(subject: Supervised) -> None:
    """With the daemon stopped in its tracks, nobody else ends it."""
    os.kill(subject.pid, signal.SIGSTOP)
    environment = {
        **os.environ,
        "LIVEKIT_SUPERVISOR_AGENT_ID": "agent-66",
        "LIVEKIT_SUPERVISOR_STATE": str(subject.state),
    }
    rogue = await asyncio.create_subprocess_exec("sleep", "60", env=environment)
    try:
        code, findings = await diagnose(subject)
        assert code == 1
        assert "the daemon does not answer" in told(of(findings, "daemon", "error"))
        [second] = of(findings, "processes", "error")
        assert f"process {rogue.pid}" in second["evidence"][0]
        assert second["fix"].startswith(f"kill {rogue.pid} ")
    finally:
        rogue.kill()
        await rogue.wait()
        os.kill(subject.pid, signal.SIGCONT)


async def test_what_livekit_lacks_is_told_with_its_lines_and_they_help(
    make_livekit_server: MakeServer, tmp_path: Path, runtime_dir: Path, hasty: dict[str, Any]
) -> None:
    server = await asyncio.to_thread(make_livekit_server, departure_timeout=10)
    await asyncio.to_thread(with_settings, server, api={"enable_psrpc_for_get_list_participants": False})
    subject = Supervised(tmp_path / "daemon", runtime_dir, server, agents=[hasty])
    await subject.start()
    try:
        code, findings = await diagnose(subject, "--probe")
        assert code == 0, told(findings)
        lacking = of(findings, "livekit", "warning")
        assert len(lacking) == 3, told(findings)
        lines: dict[str, Any] = {}
        for finding in lacking:
            assert finding["fix"].startswith("# livekit.yaml\n")
            lines |= yaml.safe_load(finding["fix"])
        await asyncio.to_thread(with_settings, server, **lines)
        await subject.until(lambda s: s["livekit"]["up"] and all(a["ready"] for a in s["agents"]), 40)
        _, findings = await diagnose(subject, "--probe")
        assert not of(findings, "livekit", "warning", "error"), told(findings)
    finally:
        await subject.close()


async def test_without_the_daemon_ghosts_and_waiting_humans_are_seen(
    make_livekit_server: MakeServer, tmp_path: Path, runtime_dir: Path, hasty: dict[str, Any]
) -> None:
    server = await asyncio.to_thread(make_livekit_server)
    subject = Supervised(tmp_path / "daemon", runtime_dir, server, agents=[hasty], rooms={"resync": "1s"})
    await subject.start()
    try:
        async with subject.human("lobby") as human:
            human.talk()
            assert await human.wait_settled(20), subject.tail()
            worker = (await subject.agent())["pid"]
            assert worker is not None
            await subject.kill()
            code, findings = await diagnose(subject)
            assert code == 1
            assert "the daemon is not running" in told(of(findings, "daemon", "error"))
            [alone] = of(findings, "processes", "warning")
            assert "runs without supervision" in alone["message"]
            assert not of(findings, "rooms", "error"), told(findings)
            os.kill(worker, signal.SIGKILL)
            async with asyncio.timeout(30):
                while True:
                    _, findings = await diagnose(subject)
                    wrong = told(of(findings, "rooms", "error"))
                    if "a ghost" in wrong or "waits without" in wrong:
                        break
            async with subject.human("other", "second"):
                _, findings = await diagnose(subject)
                assert "a human waits without an agent" in told(of(findings, "rooms", "error"))
    finally:
        await subject.close()


async def test_a_refused_key(
    make_livekit_server: MakeServer, tmp_path: Path, runtime_dir: Path, hasty: dict[str, Any]
) -> None:
    server = await asyncio.to_thread(make_livekit_server)
    server.secret = "a-wrong-secret-that-is-long-enough-0123456789"
    subject = Supervised(tmp_path / "daemon", runtime_dir, server, agents=[hasty])
    code, findings = await diagnose(subject)
    assert code == 1
    [finding] = of(findings, "livekit", "error")
    assert "refuses the key" in finding["message"]
    assert "devkey: ITS_SECRET" in finding["fix"]
    assert server.secret not in json.dumps(findings)


# --- each look by itself --------------------------------------------------------------------------------


@pytest.fixture
def inspection(livekit_server: LiveKitServer) -> Inspection:
    return Inspection(livekit_server.url, livekit_server.key, livekit_server.secret, 5.0)


async def test_a_probe_leaves_nothing(inspection: Inspection, livekit_server: LiveKitServer) -> None:
    from supervisor.core.model import Room
    from supervisor.events import EventBus
    from supervisor.livekit.api import LiveKitClient

    client = LiveKitClient(livekit_server.url, livekit_server.key, livekit_server.secret, 5.0, EventBus())
    try:
        async with inspection.probe() as room:
            assert isinstance(room, Room)
            assert room.departure_timeout == 20
            dispatches = await client.list_dispatches(room.name)
            assert isinstance(dispatches, tuple)
            assert [d.agent_name for d in dispatches] == ["livekit-supervisor-diagnose"]
        rooms = await client.list_rooms()
        assert isinstance(rooms, tuple)
        assert room.name not in [r.name for r in rooms]
    finally:
        await client.aclose()
        await inspection.aclose()


async def test_a_clock_that_is_wrong(inspection: Inspection, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    for ahead in (-3600.0, 0.0, 3600.0):
        monkeypatch.setattr("supervisor.livekit.inspection.time.time", lambda ahead=ahead: real() - ahead)
        skew = await inspection.clock_skew()
        assert skew is not None
        assert abs(skew - ahead) <= 2
    await inspection.aclose()
