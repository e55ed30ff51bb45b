"""LiveKit restarts and its rooms outlive it in Redis: never two agents, one soon, nobody removed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest

from supervisor.cli.human import Human
from tests.livekit.server import LiveKitServer
from tests.livekit.stand import SOON
from tests.redis.cluster import Cluster, comes_back
from tests.redis.conftest import MakeCluster
from tests.scale import SOAK, times

pytestmark = pytest.mark.soak

RESTARTS = times(test=1, soak=5)
WORKER_WITH = ("the dead node", "the other") if SOAK else ("the dead node",)
WITHIN = 10.0
"""Seconds from the human's reconnection until one agent is audible."""


async def heals(cluster: Cluster, human: Human, since: float) -> None:
    """One agent is heard soon after the human is back from what happened at ``since``."""
    back = await comes_back(human, since)
    heard = await human.wait_audible(WITHIN + 5, since=back)
    assert heard is not None, cluster.daemon.tail()
    print(f"away for {back - since:.2f} s, an agent audible {heard - back:.2f} s later")
    assert heard - back <= WITHIN, cluster.daemon.tail()
    assert await human.wait_settled(20), cluster.daemon.tail()
    assert human.agents.two_at_once(since) <= 1.0
    assert cluster.blind_writes() == []
    assert human.identity not in {line["identity"] for line in cluster.logged("participant removed")}


@pytest.mark.timeout(60 + 60 * RESTARTS)
@pytest.mark.parametrize("end", [LiveKitServer.kill, LiveKitServer.stop_twice], ids=["killed", "stopped"])
async def test_the_only_node_starts_again(
    make_cluster: MakeCluster, end: Callable[[LiveKitServer], None]
) -> None:
    cluster = await make_cluster()
    async with cluster.human("room") as human:
        human.talk()
        assert await human.wait_settled(SOON), cluster.daemon.tail()
        for number in range(RESTARTS):
            down = random.uniform(0, 3) if RESTARTS == 1 else 2.0 * number
            since = asyncio.get_running_loop().time()
            await asyncio.to_thread(end, cluster.nodes[0])
            await asyncio.sleep(down)
            await asyncio.to_thread(cluster.nodes[0].start)
            await heals(cluster, human, since)


@pytest.mark.timeout(60 + 60 * RESTARTS)
@pytest.mark.parametrize("worker_with", WORKER_WITH)
async def test_the_node_of_a_room_dies_and_another_takes_it(
    make_cluster: MakeCluster, worker_with: str
) -> None:
    cluster = await make_cluster(2, daemon=False)
    await cluster.make_rooms("room")
    host = await cluster.host("room")
    first = worker_with == "the dead node"
    cluster.front.nodes.sort(key=lambda node: (node is host) is not first)
    await cluster.daemon.start()
    async with cluster.human("room") as human:
        human.talk()
        assert await human.wait_settled(SOON), cluster.daemon.tail()
        for number in range(RESTARTS):
            if number:
                await asyncio.to_thread(host.start)
                host = await cluster.host("room")
            since = asyncio.get_running_loop().time()
            await asyncio.to_thread(host.kill)
            await heals(cluster, human, since)
            await cluster.daemon.until(lambda status: all(a["ready"] for a in status["agents"]), SOON)
            assert await cluster.host("room") is not host
