"""Rooms that a dead node has left in Redis: LiveKit lists them for ever, and no node answers for them.

Each read of one takes 3 s and tells nothing.  They are shown as what they are, left alone, and keep nobody
else waiting.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from livekit import api

from tests.livekit.stand import SOON, becomes
from tests.redis.cluster import Cluster
from tests.redis.conftest import MakeCluster
from tests.scale import SOAK, times

pytestmark = pytest.mark.soak

STALE = times(test=80, soak=1_000)
TOLD = times(test=80, soak=300)
"""All of these are waited for: 16 at a time, 3 s each."""
RESYNC = 2.0
KNOWN_WITHIN = 1.0 if SOAK else 2.5
"""Seconds from a human's coming; on any machine less than one look at a stale room takes."""
SERVED = "room that is served"


async def leave_rooms(cluster: Cluster, count: int) -> set[str]:
    """Rooms whose node is dead, and that node's successor."""
    names = {f"stale-{number}" for number in range(count)}
    await cluster.make_rooms(*names)
    await asyncio.to_thread(cluster.nodes[0].kill)
    await asyncio.to_thread(cluster.nodes[0].start)
    return names


async def shown(cluster: Cluster) -> dict[str, dict[str, Any]]:
    rooms = await asyncio.to_thread(cluster.daemon.client.rooms)
    return {room["name"]: dict(room) for room in rooms["rooms"]}


async def told_unknown(cluster: Cluster, names: set[str]) -> bool:
    rooms = await shown(cluster)
    return all(
        name in rooms
        and rooms[name]["state"] == "unknown"
        and "no node of LiveKit serves this room" in rooms[name]["reason"]
        for name in names
    )


@pytest.mark.timeout(120 + STALE)
@pytest.mark.parametrize("webhooks", [True, False] if SOAK else [False])
async def test_stale_rooms_are_in_nobodys_way(make_cluster: MakeCluster, webhooks: bool) -> None:
    cluster = await make_cluster(daemon=False, webhooks=webhooks, rooms={"resync": f"{RESYNC}s"})
    await leave_rooms(cluster, STALE)
    loop = asyncio.get_running_loop()
    await cluster.daemon.start()
    async with cluster.human(SERVED) as human:
        came = loop.time()
        human.talk()

        async def known() -> bool:
            return SERVED in await shown(cluster)

        await becomes(known)
        took = loop.time() - came
        print(f"beside {STALE} stale rooms a room was known after {took:.2f} s")
        assert took < KNOWN_WITHIN + (0 if webhooks else RESYNC)
        assert await human.wait_settled(SOON), cluster.daemon.tail()
        status = await cluster.daemon.status()
        assert status is not None
        assert status["livekit"]["up"]
    touched = {line["room"] for line in cluster.logged("dispatch", "participant removed")}
    assert touched == {SERVED}
    assert cluster.blind_writes() == []


@pytest.mark.timeout(120 + 2 * TOLD)
async def test_stale_rooms_are_told_served_when_somebody_comes_and_forgotten_when_livekit_does(
    make_cluster: MakeCluster,
) -> None:
    cluster = await make_cluster(daemon=False)
    stale = await leave_rooms(cluster, TOLD)
    await cluster.daemon.start()
    await becomes(lambda: told_unknown(cluster, stale), within=SOON + TOLD)
    async with cluster.human("stale-0") as human:
        human.talk()
        assert await human.wait_settled(SOON), cluster.daemon.tail()
        assert (await shown(cluster))["stale-0"]["state"] == "healthy"
        async with cluster.livekit() as livekit:  # an operator's way: a node takes it, and ends it
            await livekit.room.create_room(api.CreateRoomRequest(name="stale-1"))
            await livekit.room.delete_room(api.DeleteRoomRequest(room="stale-1"))

        async def forgotten() -> bool:
            return "stale-1" not in await shown(cluster)

        await becomes(forgotten)
        await asyncio.to_thread(cluster.store.ask, "DEL", "rooms")

        async def all_forgotten() -> bool:
            return set(await shown(cluster)) == {"stale-0"}

        await becomes(all_forgotten, within=SOON + TOLD)
        assert human.exactly_one_audible()
    assert cluster.blind_writes() == []
