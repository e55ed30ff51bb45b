"""What LiveKit does with rooms that outlive their node, asked of the real one and of its model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.core.model import Dispatch, Room, Unknown
from supervisor.core.ports import Failed, RequestOutcome
from tests.livekit.server import LiveKitServer
from tests.livekit.stage import (
    Stage,
    Story,
    dispatches,
    participants,
    play_on_model,
    play_on_server,
    rooms,
    some_room,
)
from tests.redis.store import RedisServer


def on_model(story: Story, _: Path) -> None:
    play_on_model(story, redis=True)


def on_server(story: Story, folder: Path) -> None:
    store = RedisServer(folder / "redis")
    server = LiveKitServer(folder / "livekit", redis=store.address)
    try:
        store.start()
        server.start()
        play_on_server(story, server)
    finally:
        server.kill()
        store.kill()


async def room_of(stage: Stage, name: str) -> Room:
    listed = await stage.livekit.list_rooms()
    assert not isinstance(listed, Unknown)
    [room] = [room for room in listed if room.name == name]
    return room


@pytest.mark.parametrize("play", [on_model, on_server], ids=["model", "server"])
def test_a_room_outlives_its_node_and_is_unknown_until_somebody_comes(
    play: Callable[[Story, Path], None], tmp_path: Path
) -> None:
    async def story(stage: Stage) -> None:
        room, other = some_room(), some_room()
        ann = await stage.visitor(room, "ann", agents=("A",))
        await stage.livekit.create_dispatch(room, "B", "")
        await stage.livekit.create_dispatch(other, "A", "")
        before, old = await room_of(stage, room), await dispatches(stage, room)
        await stage.kill_server()
        await ann.leave()
        await stage.start_server()
        assert {room, other} <= await rooms(stage)
        asked = asyncio.get_running_loop().time()
        assert isinstance(await stage.livekit.list_participants(room), Unknown)
        assert 2.5 < asyncio.get_running_loop().time() - asked < 4.5
        assert isinstance(await stage.livekit.list_dispatches(room), Unknown)
        for dispatch_id in old:
            answer = await stage.livekit.delete_dispatch(room, dispatch_id)
            assert isinstance(answer, Failed)
            assert answer.outcome is RequestOutcome.UNAVAILABLE

        await stage.visitor(room, "bob")
        assert set(await participants(stage, room)) == {"bob"}
        assert (await room_of(stage, room)).sid == before.sid, "it is the same room"
        new = await dispatches(stage, room)
        assert [d.agent_name for d in new.values()] == ["A"], (
            "what made the room is asked for again, only that"
        )
        assert new.keys().isdisjoint(old)

        assert isinstance(await stage.livekit.create_dispatch(other, "C", ""), Dispatch)
        assert sorted(d.agent_name for d in (await dispatches(stage, other)).values()) == ["", "C"]

    play(story, tmp_path)
