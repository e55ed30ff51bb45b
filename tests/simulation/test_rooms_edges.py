"""What a room reconciler remembers, and when it has to forget: single stories on the model of LiveKit."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from supervisor.core.model import RoomState
from supervisor.events import ConflictResolved, Event, EventBus
from supervisor.reconcile.worker import AgentSpec
from tests.simulation.model_faults import Fault, FaultWindow, WebhookFaults
from tests.simulation.model_workers import ModelWorker
from tests.simulation.model_world import World
from tests.simulation.sim_daemon import ATTRIBUTES, Disk, SimDaemon
from tests.simulation.virtual_time import run


class Daemon(SimDaemon):
    """Its agents may have a limit."""

    max_rooms = 0

    def _spec(self, worker: ModelWorker) -> AgentSpec:
        return replace(super()._spec(worker), max_rooms=self.max_rooms)


class Stage:
    """A world in which a daemon has just found its workers ready."""

    def __init__(self, *, webhooks: WebhookFaults | None = None) -> None:
        self.bus = EventBus()
        self.events: list[Event] = []
        self.bus.subscribe(self.events.append)
        self.world = World(random.Random(3), webhook_faults=webhooks, bus=self.bus)

    async def begin(
        self, *names: str, max_rooms: int = 0, rooms: Sequence[str] = ("*",), enforce: bool = True
    ) -> None:
        workers = [self.world.worker(name.lower(), name, None, ATTRIBUTES, start=None) for name in names]
        patterns = {name.lower(): tuple(rooms) if name == names[0] else () for name in names}
        self.daemon = Daemon(self.world, workers, Disk(), self.bus, rooms=patterns, enforce=enforce)
        self.daemon.max_rooms = max_rooms
        await self.daemon.start()
        await asyncio.sleep(8.0)

    def states(self) -> dict[str, RoomState]:
        return {view.name: view.state for view, _ in self.daemon.rooms.views()}

    def conflicts(self, kind: str) -> Counter[str]:
        return Counter(
            e.resolution for e in self.events if isinstance(e, ConflictResolved) and e.kind == kind
        )

    def serving(self, room: str) -> list[str]:
        return [job.worker.name for job in self.world.jobs() if job.room == room]


async def until(gate: Callable[[], bool]) -> None:
    while not gate():  # noqa: ASYNC110 - virtual time
        await asyncio.sleep(0.02)


def test_a_room_that_is_to_be_ignored_by_now_is_forgotten() -> None:
    async def story() -> None:
        stage = Stage()
        await stage.begin("Alice")
        human = stage.world.human("red", "human")
        await asyncio.sleep(3.0)
        stage.world.loose_agent("red", "spy", {"supervisor.instance": "other"})
        await asyncio.sleep(1.0)
        assert stage.states() == {"red": RoomState.CONFLICT}
        stage.daemon.rooms.ignore = ("red",)
        stage.daemon.rooms.wake_all()  # as a reload does
        await asyncio.sleep(1.0)
        assert stage.states() == {}
        assert sum(stage.daemon.rooms.unresolved().values()) == 0
        human.leave()
        await stage.daemon.kill()

    run(story())


def test_who_found_the_agent_full_has_it_as_soon_as_it_is_free() -> None:
    async def story() -> None:
        stage = Stage()
        await stage.begin("Alice", max_rooms=1)
        first = stage.world.human("red", "first")
        await asyncio.sleep(4.0)
        stage.world.human("blue", "second")
        await asyncio.sleep(20.0)
        assert stage.states()["blue"] is RoomState.MISSING_AGENT
        first.leave()
        await until(lambda: stage.daemon.book.table.get("red") is None)
        await asyncio.sleep(3.0)
        assert stage.world.audible("blue")
        await stage.daemon.kill()

    run(story())


def test_what_fails_again_and_again_is_told_once_while_it_stands() -> None:
    async def story() -> None:
        stage = Stage()
        await stage.begin("Alice")
        stage.world.human("red", "human")
        await asyncio.sleep(5.0)
        now = asyncio.get_running_loop().time()
        refused = FaultWindow(Fault.ERROR, now, now + 120.0, 1.0, frozenset({"remove_participant"}))
        stage.world.api_faults.windows.append(refused)
        stage.world.loose_agent("red", "stranger")
        await asyncio.sleep(100.0)
        assert stage.conflicts("foreign_agent") == {"failed": 1}
        await asyncio.sleep(60.0)
        assert stage.conflicts("foreign_agent") == {"failed": 1, "evicted": 1}
        await stage.daemon.kill()

    run(story())


def test_without_enforcement_a_job_that_hangs_is_told_of_and_left() -> None:
    async def story() -> None:
        stage = Stage()
        await stage.begin("Alice", enforce=False)
        stage.world.human("red", "human", agents=("Alice",))
        await asyncio.sleep(5.0)
        [job] = stage.world.jobs()
        job.freeze()
        await asyncio.sleep(60.0)
        assert stage.conflicts("hung_job") == {"reported": 1}
        assert stage.world.jobs() == [job]
        await stage.daemon.kill()

    run(story())


@pytest.mark.parametrize("webhooks", [WebhookFaults(), WebhookFaults(lost=1.0)], ids=["webhooks", "deaf"])
@pytest.mark.parametrize("pause", [0.0, 0.3, 5.0])
def test_a_new_room_of_the_same_name_owes_nothing_to_the_last_one(
    webhooks: WebhookFaults, pause: float
) -> None:
    async def story() -> None:
        stage = Stage(webhooks=webhooks)
        await stage.begin("Alice", "Bob")
        human = stage.world.human("red", "first")
        await asyncio.sleep(0.3)
        stage.world.server.create_dispatch("red", "Bob", "an order")
        await asyncio.sleep(20.0)
        assert stage.serving("red") == ["Bob"]
        human.leave()
        await until(lambda: "red" not in stage.world.server.rooms)
        await asyncio.sleep(pause)
        stage.world.human("red", "second")
        await asyncio.sleep(40.0)
        assert stage.serving("red") == ["Alice"]
        await stage.daemon.kill()

    run(story())
