"""The demo, whole: a set-up of its own, four disturbances, and the truth about how the room ended."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest

from supervisor.cli import demo
from supervisor.cli.client import Client
from supervisor.cli.demo_view import Timeline
from supervisor.cli.disturbances import Disturbance, Mischief
from supervisor.cli.documents import Agent
from supervisor.cli.errors import CliError
from supervisor.cli.human import Access, Human
from tests.livekit.server import LiveKitServer
from tests.ports import free_port
from tests.unit.cli_daemon import agent

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture
def config(tmp_path: Path, runtime_dir: Path) -> Path:
    file = tmp_path / "config.yaml"
    file.write_text(
        f"livekit: {{url: 'ws://127.0.0.1:{free_port()}', api_key: devkey, api_secret: {'s' * 40}}}\n"
        f"agents: [{{id: one, name: Agent_66, script: {CHECKOUT}/agent/voice.py, rooms: ['*']}}]\n"
        f"paths: {{state: {tmp_path}/state, runtime: {runtime_dir}, logs: {tmp_path}/logs}}\n"
        f"http: {{listen: '127.0.0.1:{free_port()}'}}\n"
    )
    return file


@pytest.mark.timeout(300)
def test_the_room_ends_with_exactly_one_audible_agent(config: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "supervisor", "demo", "--json", "--config", config],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["one_audible_agent_at_the_end"] is True
    assert document["agent_id"] == "one"
    disturbances = {d["disturbance"]: d for d in document["disturbances"]}
    assert list(disturbances) == ["second_dispatch", "worker_killed", "livekit_killed", "human_returns"]
    for disturbance in disturbances.values():
        assert disturbance["healed"], done.stderr
        assert disturbance["most_agents_audible"] == 1, done.stderr
    assert "no daemon is running: starting a development set-up" in done.stderr
    assert "exactly one audible agent" in done.stderr
    assert "s" * 40 not in done.stdout + done.stderr


# --- and when it does not heal ------------------------------------------------------------------------

ROOM = "0a1b2c"

AGENT = cast(Agent, agent("one", ""))


@pytest.fixture
async def agents(livekit_server: LiveKitServer) -> AsyncIterator[list[Human]]:
    access = Access(livekit_server.url, livekit_server.key, livekit_server.secret)
    pair = [Human(access, f"demo-{ROOM}", name, kind="agent", pitch=500) for name in ("agent-1", "agent-2")]
    for one in pair:
        one.talk()
    yield pair
    for one in pair:
        await one.leave()


@pytest.mark.parametrize(("comes", "goes"), [(True, False), (False, True)], ids=["two agents", "no agent"])
async def test_a_room_that_does_not_heal_is_told(
    livekit_server: LiveKitServer,
    agents: list[Human],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    comes: bool,
    goes: bool,
) -> None:
    first, second = agents

    async def disturb() -> float:
        start = time.monotonic()
        await (second.join() if comes else first.leave())
        return start

    monkeypatch.setattr(secrets, "token_hex", lambda _: ROOM)
    monkeypatch.setattr(demo, "HEALING", 4.0)
    monkeypatch.setattr(demo, "STEADY", 0.5)
    monkeypatch.setattr(Mischief, "all", lambda _: (Disturbance("x", "x", "something is done", disturb),))
    await first.join()
    access = Access(livekit_server.url, livekit_server.key, livekit_server.secret)
    with Timeline(to_stderr=True) as timeline:
        client = Client(tmp_path / "none.sock")
        room, results, one_audible = await demo._show(client, AGENT, access, timeline)
    assert room == f"demo-{ROOM}"
    assert not one_audible
    assert [r.healed for r in results] == [False]
    assert results[0].most_audible == (2 if comes else 0)
    assert (results[0].seconds_until_audible is None) == goes


async def test_no_agent_at_all_ends_the_demo(
    livekit_server: LiveKitServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(demo, "FIRST_SOUND", 0.5)
    access = Access(livekit_server.url, livekit_server.key, livekit_server.secret)
    with Timeline(to_stderr=True) as timeline, pytest.raises(CliError, match=r"no agent was heard"):
        await demo._show(Client(tmp_path / "none.sock"), AGENT, access, timeline)
