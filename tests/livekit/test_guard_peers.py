"""Processes that speak to a real daemon and mean no good, or do not hear: what is theirs, and what is not."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from supervisor.reconcile.claimbook import LEAVE_SECONDS
from tests.livekit.server import LiveKitServer
from tests.livekit.stand import AGENTS, becomes
from tests.livekit.supervised import Supervised

TICK = 0.5
SLACK = 5.0
"""What two shared cores may be late."""


def hello(
    name: str, job_id: str, *, agent_id: str = "deaf", room: str = "room", **more: Any
) -> dict[str, Any]:
    spoken = {"agent_id": agent_id, "room": room, "job_id": job_id, "identity": f"agent-{job_id}"}
    return {"name": name, "dispatch_id": "", "epoch": None, "joined": True, **spoken, **more}


HELLOS = [
    hello("holder", "AJ_1"),
    hello("second", "AJ_2"),
    hello("impostor", "AJ_1"),
    hello("elsewhere", "AJ_1", room="other"),
    hello("another's", "AJ_3", agent_id="quiet", room="free"),
    hello("true is no epoch", "AJ_4", room="free", epoch=True),
    hello("nobody", "", room="free"),
]


@pytest.fixture
async def daemon(tmp_path: Path, runtime_dir: Path) -> AsyncIterator[Supervised]:
    """Without LiveKit, which none of this needs."""
    speaker = [
        sys.executable,
        str(AGENTS / "deaf_jobs.py"),
        str(runtime_dir / "guard.sock"),
        json.dumps(HELLOS),
    ]
    agents: list[dict[str, Any]] = [
        {"id": "quiet", "command": ["sleep", "600"], "rooms": []},
        {"id": "deaf", "command": speaker, "rooms": [], "heartbeat": {"interval": "500ms", "timeout": "10s"}},
    ]
    server = LiveKitServer(tmp_path / "livekit")
    daemon = Supervised(tmp_path / "daemon", runtime_dir, server, agents=agents)
    await daemon.start(wait=False)
    await daemon.until(lambda status: all(agent["pid"] for agent in status["agents"]), 30)
    yield daemon
    await daemon.close()


def told(daemon: Supervised, name: str, what: str) -> list[Any]:
    """By the speaker, of this process."""
    log = daemon.state / "logs" / "deaf.log"
    lines = log.read_text().splitlines() if log.exists() else []
    entries = [json.loads(line) for line in lines]
    return [
        entry[what] if what == "heard" else entry
        for entry in entries
        if entry["job"] == name and what in entry
    ]


async def test_whoever_does_not_leave_is_killed_and_nobody_speaks_for_another(daemon: Supervised) -> None:
    async def all_heard() -> bool:
        return all(told(daemon, str(h["name"]), "heard") for h in HELLOS)

    async def killed() -> bool:
        return bool(told(daemon, "second", "ended"))

    await becomes(all_heard)
    first = told(daemon, "holder", "heard")[0]
    assert (first["type"], first["hold"]) == ("welcome", True)
    second = told(daemon, "second", "heard")[0]
    assert (second["type"], second["hold"]) == ("welcome", False)
    reasons = {str(h["name"]): told(daemon, str(h["name"]), "heard")[0].get("reason") for h in HELLOS[2:]}
    assert reasons == {
        "impostor": "that job is another process's",
        "elsewhere": "that job is another process's",
        "another's": "not in the tree of that agent's worker",
        "true is no epoch": "epoch must be a whole number from 0 to 4503599627370496",
        "nobody": "job_id must not be empty",
    }
    await becomes(killed)
    [end] = told(daemon, "second", "ended")
    assert end["ended"] == -9
    assert LEAVE_SECONDS <= end["seconds"] <= LEAVE_SECONDS + TICK + SLACK
    assert told(daemon, "holder", "ended") == []
    assert len(told(daemon, "holder", "heard")) == 1
    assert await daemon.metric("claims", {"agent_id": "deaf"}) == 1


async def test_who_is_in_no_workers_tree_is_refused(daemon: Supervised, runtime_dir: Path) -> None:
    reader, writer = await asyncio.open_unix_connection(str(runtime_dir / "guard.sock"))
    writer.write(json.dumps({"type": "hello", "v": 1, "role": "job", **HELLOS[0]}).encode() + b"\n")
    refused = json.loads(await reader.readline())
    assert refused == {"type": "refused", "reason": "not in the tree of that agent's worker"}
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
