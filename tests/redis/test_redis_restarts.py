"""Redis is killed under a running LiveKit, and comes back empty: calls heal, and nothing is done blindly."""

from __future__ import annotations

import asyncio

import pytest

from supervisor.cli.human import What
from tests.livekit.stand import SOON, becomes
from tests.redis.conftest import MakeCluster
from tests.scale import times

pytestmark = pytest.mark.soak

RESTARTS = times(test=1, soak=5)


@pytest.mark.timeout(60 + 60 * RESTARTS)
async def test_redis_dies_and_comes_back(make_cluster: MakeCluster) -> None:
    cluster = await make_cluster()
    async with cluster.human("room") as human:
        human.talk()
        assert await human.wait_settled(SOON), cluster.daemon.tail()
        for number in range(RESTARTS):
            since = asyncio.get_running_loop().time()
            await asyncio.to_thread(cluster.store.kill)

            async def told() -> bool:
                status, why = await cluster.daemon.get("/readyz")
                return status == 503 and "LiveKit is not reached" in why

            await becomes(told)
            await asyncio.sleep(2.0 * number)
            await asyncio.to_thread(cluster.store.start)
            # Sound goes on without Redis; who loses the server's signals meanwhile comes back by itself.
            assert await human.wait_settled(SOON), cluster.daemon.tail()
            assert human.agents.two_at_once(since) <= 1.0
            await cluster.daemon.until(lambda status: status["livekit"]["up"], SOON)

            async def healthy() -> bool:
                room = await cluster.daemon.room("room")
                return room is not None and room["state"] == "healthy"

            await becomes(healthy)
        if {h.what for h in human.history}.isdisjoint({What.LOST, What.RECONNECTING}):
            states = [line["new"] for line in cluster.logged("room state changed")]
            assert set(states[states.index("healthy") :]) <= {"healthy", "unknown"}, "the human was there"
        assert cluster.logged("participant removed") == []
        assert cluster.blind_writes() == []
