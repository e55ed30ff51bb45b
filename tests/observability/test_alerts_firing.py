"""Real faults, a real Prometheus: the alert reaches firing, with its labels, and ends when the fault does."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from supervisor.cli.human import Human
from tests.livekit.conftest import MakeServer, make_livekit_server
from tests.livekit.server import LiveKitServer
from tests.livekit.supervised import Supervised, voice
from tests.observability.guest import agent_guest
from tests.observability.prometheus import JOB, Prometheus
from tests.ports import free_port

__all__ = ["make_livekit_server"]  # a fixture of another tier

SOON = 20.0
LOOPER = {
    "id": "looper",
    "name": "L",
    "command": ["sleep", "600"],
    "restart": {"initial": "100ms", "jitter": 0},
}


@dataclass
class World:
    livekit: LiveKitServer
    supervised: Supervised
    prometheus: Prometheus
    human: Human

    async def fires(self, name: str, **labels: str) -> None:
        """Within the moment that it may take, with these labels, and with nothing else that is critical."""
        told = await self.prometheus.fires(name, SOON)
        for key, value in {"job": JOB, "instance": self.prometheus.target, **labels}.items():
            assert told[key] == value, told

    async def ends(self, *names: str) -> None:
        for name in names:
            await self.prometheus.ends(name, SOON)


@pytest.fixture
async def world(make_livekit_server: MakeServer, tmp_path: Path, runtime_dir: Path) -> AsyncIterator[World]:
    port = free_port()
    hook = (f"http://127.0.0.1:{port}/livekit/webhook",)
    livekit = await asyncio.to_thread(make_livekit_server, webhook_urls=hook)
    supervised = Supervised(tmp_path / "daemon", runtime_dir, livekit, port=port, agents=[voice(), LOOPER])
    await supervised.start()
    try:
        async with (
            Prometheus(tmp_path / "prometheus", port).running() as prometheus,
            supervised.human("call") as human,
        ):
            human.talk()
            assert await human.wait_settled(SOON), supervised.tail()
            yield World(livekit, supervised, prometheus, human)
    finally:
        await supervised.close()


async def test_faults_reach_firing(world: World) -> None:
    """One after the other, since setting the stage costs more than the faults."""
    await all_is_well(world)
    await a_second_agent_joins(world)
    await a_worker_is_killed_in_a_loop(world)
    await a_room_is_without_an_agent(world)
    await livekit_goes_down(world)
    await the_supervisor_is_killed(world)


async def all_is_well(world: World) -> None:
    assert await world.prometheus.firing() == set()


async def a_second_agent_joins(world: World) -> None:
    """One of the same name, from a worker without a guard."""
    async with agent_guest(world.livekit, "call", {"lk.agent_name": "Agent_66"}):
        await world.fires("LiveKitDuplicateAgent", kind="duplicate_agent", severity="warning")
    conflicts = {"kind": "duplicate_agent", "resolution": "evicted"}
    assert await world.supervised.metric("conflicts_total", conflicts) == 1


async def a_worker_is_killed_in_a_loop(world: World) -> None:
    killed: set[int] = set()
    async with asyncio.timeout(SOON):
        while len(killed) < 5:
            pid = (await world.supervised.agent(1))["pid"]
            if pid is not None and pid not in killed:
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
            await asyncio.sleep(0.02)
    await world.fires("LiveKitAgentCrashLoop", agent_id="looper", severity="critical")


async def a_room_is_without_an_agent(world: World) -> None:
    """Its agent is stopped by the operator in the middle of a call: not down, but silence all the same."""
    client = world.supervised.client
    await asyncio.to_thread(client.command, "stop", {"agent": "agent-66"})
    await world.fires("LiveKitRoomWithoutAgent", severity="critical")
    assert await world.prometheus.firing(agent_id="agent-66") == set()
    await asyncio.to_thread(client.command, "start", {"agent": "agent-66"})
    await world.ends("LiveKitRoomWithoutAgent")


async def livekit_goes_down(world: World) -> None:
    await asyncio.to_thread(world.livekit.kill)
    await world.fires("LiveKitUnreachable", severity="critical")
    assert await world.prometheus.firing(agent_id="agent-66") == set()
    await asyncio.to_thread(world.livekit.start)
    await world.ends("LiveKitUnreachable")


async def the_supervisor_is_killed(world: World) -> None:
    await world.supervised.kill()
    await world.fires("LiveKitSupervisorDown", severity="critical")
    await world.supervised.start(wait=False)
    await world.ends("LiveKitSupervisorDown")
