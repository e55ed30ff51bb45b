"""The feed of the status page: only what changed, nothing while nobody watches, nobody waited for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from supervisor.core.conflicts import ConflictKind, Resolution
from supervisor.endpoints import feed as feed_module
from supervisor.endpoints.feed import MAX_WATCHERS, REMEMBERED, Feed, Watcher
from supervisor.events import (
    ConflictResolved,
    EventBus,
    InternalError,
    Loop,
    LoopOutcome,
    Reconciled,
    RoomStateChanged,
    WorkerReady,
)
from tests.unit.endpoint_fakes import STATUS, FakeViews, Recorder, room

SECONDS = 5.0


class World:
    def __init__(self) -> None:
        self.views = FakeViews()
        self.bus = EventBus()
        self.recorder = Recorder(self.bus)
        self.feed = Feed(self.views, self.bus)
        self.bus.subscribe(self.feed)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    await world.feed.aclose()


async def take(watcher: Watcher) -> tuple[str, Any]:
    message = await asyncio.wait_for(watcher.next(), SECONDS)
    assert message is not None
    event, data, *rest = message.decode().split("\n")
    assert rest == ["", ""]
    return event.removeprefix("event: "), json.loads(data.removeprefix("data: "))


async def skip_the_present(watcher: Watcher) -> None:
    assert [(await take(watcher))[0] for _ in range(3)] == ["status", "rooms", "timeline"]


def stir(bus: EventBus) -> None:
    bus.publish(RoomStateChanged(room="r", old="healthy", new="conflict"))


async def test_a_new_watcher_gets_the_present(world: World) -> None:
    world.views.all_rooms = [room("a"), room("b", "conflict")]
    world.bus.publish(WorkerReady(agent_id="agent-a", pid=1, seconds=2.0))
    with world.feed.watch() as watcher:
        assert await take(watcher) == ("status", STATUS)
        name, rooms = await take(watcher)
        assert (name, rooms["reset"], rooms["removed"]) == ("rooms", True, [])
        assert [r["name"] for r in rooms["changed"]] == ["a", "b"]
        name, lines = await take(watcher)
        assert [line["title"] for line in lines] == ["Worker ready"]


async def test_only_what_changed_is_sent(world: World) -> None:
    world.views.all_rooms = [room(f"room-{n}") for n in range(1_000)]
    with world.feed.watch() as watcher:
        await skip_the_present(watcher)
        world.views.all_rooms[7] = room("room-7", "missing_agent")
        del world.views.all_rooms[8]
        stir(world.bus)
        name, rooms = await take(watcher)
        assert name == "rooms"
        assert rooms == {"reset": False, "changed": [room("room-7", "missing_agent")], "removed": ["room-8"]}
        world.views.now = {**STATUS, "rooms": {"healthy": 1}}
        stir(world.bus)
        name, status = await take(watcher)
        assert (name, status["rooms"]) == ("status", {"healthy": 1})


async def test_a_line_of_the_timeline_is_sent_at_once(world: World) -> None:
    with world.feed.watch() as watcher:
        await skip_the_present(watcher)
        world.bus.publish(
            ConflictResolved(
                kind=ConflictKind.GHOST_AGENT, resolution=Resolution.EVICTED, seconds=0.1, room="<b>"
            )
        )
        name, lines = await take(watcher)
        assert (name, lines[0]["title"], lines[0]["room"]) == ("timeline", "Ghost agent: evicted", "<b>")


async def test_nothing_is_read_while_nobody_watches(world: World) -> None:
    stir(world.bus)
    await asyncio.sleep(0.3)
    assert world.views.looks == 0
    with world.feed.watch() as watcher:
        await skip_the_present(watcher)
    looks = world.views.looks
    stir(world.bus)
    await asyncio.sleep(0.3)
    assert world.views.looks == looks


async def test_the_feed_goes_on_for_the_next_watcher(world: World) -> None:
    for _ in range(3):
        with world.feed.watch() as watcher:
            await skip_the_present(watcher)
            world.views.now = {**STATUS, "rooms": {"healthy": world.views.looks}}
            stir(world.bus)
            assert (await take(watcher))[0] == "status"


async def test_what_nobody_could_see_makes_no_look(world: World) -> None:
    with world.feed.watch() as watcher:
        await skip_the_present(watcher)
        looks = world.views.looks
        world.bus.publish(Reconciled(loop=Loop.ROOMS, outcome=LoopOutcome.OK, seconds=0.1))
        await asyncio.sleep(0.3)
        assert world.views.looks == looks


async def test_a_look_comes_by_itself_now_and_then(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "LOOK_SECONDS", 0.05)
    with world.feed.watch() as watcher:
        await skip_the_present(watcher)
        world.views.all_rooms = [room("new")]
        assert (await take(watcher))[0] == "rooms"


async def test_a_watcher_who_does_not_read_is_let_go(world: World) -> None:
    with world.feed.watch() as lazy, world.feed.watch() as keen:
        await skip_the_present(keen)
        for n in range(300):
            world.bus.publish(WorkerReady(agent_id="agent-a", pid=n, seconds=2.0))
            assert (await take(keen))[0] == "timeline"
        assert await asyncio.wait_for(lazy.next(), SECONDS) is None


async def test_a_defect_in_a_view_is_an_event_and_not_the_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "LOOK_SECONDS", 0.05)
    with world.feed.watch() as watcher:
        await skip_the_present(watcher)
        world.views.error = RuntimeError("defect")
        stir(world.bus)
        assert (await take(watcher))[1][0]["title"] == "Unexpected error"
        world.views.error = None
        world.views.now = {**STATUS, "rooms": {}}
        while (await take(watcher))[0] != "status":
            pass
    assert world.recorder.of(InternalError)


async def test_there_is_a_most_of_watchers(world: World) -> None:
    watching = [world.feed.watch() for _ in range(MAX_WATCHERS)]
    for each in watching[:-1]:
        each.__enter__()
    assert not world.feed.full
    watching[-1].__enter__()
    assert world.feed.full
    for each in watching:
        each.__exit__(None, None, None)
    assert not world.feed.full


async def test_at_the_end_everybody_is_let_go(world: World) -> None:
    with world.feed.watch() as watcher:
        await world.feed.aclose()
        assert await asyncio.wait_for(watcher.next(), SECONDS) is None
        assert world.feed.full


async def test_the_past_comes_before_what_happened_since(world: World) -> None:
    world.bus.publish(WorkerReady(agent_id="agent-a", pid=1, seconds=2.0))
    world.feed.preload(
        [(1.0, "worker_restarted", {"agent_id": "agent-a", "reason": "oom"}), (2.0, "room_state_changed", {})]
    )
    with world.feed.watch() as watcher:
        await take(watcher)
        await take(watcher)
        _, lines = await take(watcher)
    assert [line["title"] for line in lines] == ["Worker restarted", "Worker ready"]
    assert lines[0]["time"] == "1970-01-01T00:00:01.000Z"


async def test_what_is_remembered_is_bounded(world: World) -> None:
    for n in range(REMEMBERED + 50):
        world.bus.publish(WorkerReady(agent_id="agent-a", pid=n, seconds=2.0))
    with world.feed.watch() as watcher:
        await take(watcher)
        await take(watcher)
        assert len((await take(watcher))[1]) == REMEMBERED
