"""A resync reads of a quiet room what it must, and no more; and sees at once what is not quiet any more."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import replace

from supervisor.core.model import RoomState
from supervisor.events import Event, EventBus, LiveKitRequest
from supervisor.reconcile.glance import GLANCES
from tests.simulation.model_faults import WebhookFaults
from tests.simulation.model_world import World
from tests.simulation.sim_daemon import ATTRIBUTES, Disk, SimDaemon
from tests.simulation.virtual_time import run

RESYNC = 15.0
DEAF = WebhookFaults(lost=1.0)
"""Whatever is noticed is noticed by a resync."""


class Scene:
    """A human and an agent in a room, found by a daemon that hears of nothing by itself."""

    async def begin(self) -> None:
        self.bus = EventBus()
        self.reads: Counter[str] = Counter()
        self.bus.subscribe(self._count)
        self.world = World(random.Random(7), webhook_faults=DEAF, bus=self.bus)
        self.worker = self.world.worker("alice", "Alice", None, ATTRIBUTES, start=None)
        self.daemon = SimDaemon(self.world, [self.worker], Disk(), self.bus, resync=RESYNC)
        await self.daemon.start()
        await asyncio.sleep(8.0)
        self.human = self.world.human("red", "human")
        await asyncio.sleep(6 * RESYNC)
        assert self.state() is RoomState.HEALTHY

    def _count(self, event: Event) -> None:
        if isinstance(event, LiveKitRequest):
            self.reads[event.method] += 1

    def state(self) -> RoomState | None:
        return next((view.state for view, _ in self.daemon.rooms.views() if view.name == "red"), None)

    async def end(self) -> None:
        await self.daemon.kill()


def test_a_quiet_room_costs_one_read_and_now_and_then_two() -> None:
    async def story() -> None:
        scene = Scene()
        await scene.begin()
        scene.reads.clear()
        rounds = 5 * (GLANCES + 1)
        await asyncio.sleep(rounds * RESYNC)
        assert scene.reads["list_participants"] == rounds
        assert scene.reads["list_dispatches"] == rounds / (GLANCES + 1)
        await scene.end()

    run(story())


def test_who_comes_and_goes_is_seen_by_the_next_resync() -> None:
    async def story() -> None:
        scene = Scene()
        await scene.begin()
        scene.world.loose_agent("red", "second")
        await asyncio.sleep(RESYNC + 3.0)
        assert len(scene.world.audible("red")) == 1
        scene.human.leave()
        await asyncio.sleep(RESYNC + 1.0)
        assert scene.state() is not RoomState.HEALTHY
        await scene.end()

    run(story())


def test_a_forgotten_dispatch_is_seen_when_dispatches_are_read_again() -> None:
    async def story() -> None:
        scene = Scene()
        await scene.begin()
        dispatches = scene.world.server.rooms["red"].dispatches
        first = next(iter(dispatches.values()))
        forgotten = replace(first, id="AD_forgotten", agent_name="Alice", job_ids=[])
        dispatches[forgotten.id] = forgotten  # offered to nobody: so nobody refuses it, and tells
        await asyncio.sleep((GLANCES + 2) * RESYNC)
        assert forgotten.id not in dispatches
        assert scene.state() is RoomState.HEALTHY
        await scene.end()

    run(story())
