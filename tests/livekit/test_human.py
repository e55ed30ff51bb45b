"""The synthetic human hears what is said in a real room, for as long as it is said, and nothing else."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator

import pytest

from supervisor.cli import rtc_connection
from supervisor.cli.human import Access, Human, JoinFailed, Rejoin, What
from tests.livekit.conftest import MakeServer
from tests.livekit.server import LiveKitServer

BUSY = 10.0
"""Seconds that a busy machine is given for what takes milliseconds."""


def access(server: LiveKitServer) -> Access:
    return Access(server.url, server.key, server.secret)


@pytest.fixture
def room() -> str:
    return f"room-{uuid.uuid4().hex[:8]}"


@pytest.fixture
async def human(livekit_server: LiveKitServer, room: str) -> AsyncIterator[Human]:
    async with Human(access(livekit_server), room, "human") as human:
        yield human


def agent_for(server: LiveKitServer, room: str, identity: str = "agent-1", **options: object) -> Human:
    return Human(access(server), room, identity, kind="agent", pitch=520.0, **options)  # type: ignore[arg-type]


async def test_hears_an_agent_within_a_second_and_no_more_when_it_left(
    livekit_server: LiveKitServer, room: str, human: Human
) -> None:
    agent = agent_for(livekit_server, room)
    await agent.join()
    assert await human.wait_until(lambda: human.agents.present() == ("agent-1",), BUSY)
    assert human.agents.audible() == ()
    spoke = time.monotonic()
    agent.talk()
    heard = await human.wait_audible(BUSY, since=spoke)
    assert heard is not None
    assert heard - spoke < 1.0
    assert await human.wait_settled(BUSY, steady=0.5)
    await agent.leave()
    assert await human.wait_until(lambda: not human.agents.present(), BUSY)
    assert human.agents.audible() == ()
    assert not human.exactly_one_audible()


async def test_silence_is_not_heard(livekit_server: LiveKitServer, room: str, human: Human) -> None:
    async with agent_for(livekit_server, room) as agent:
        await agent.say(1.0)
        assert await human.wait_until(lambda: not human.agents.audible(), BUSY)
        assert human.agents.present() == ("agent-1",)


async def test_hears_two_agents_as_two(livekit_server: LiveKitServer, room: str, human: Human) -> None:
    start = time.monotonic()
    first, second = agent_for(livekit_server, room), agent_for(livekit_server, room, "agent-2")
    async with first, second:
        first.talk()
        second.talk()
        assert await human.wait_until(lambda: human.agents.two_at_once(start) > 0.5, BUSY)
        assert not human.exactly_one_audible()
    assert human.agents.most_present(start) == 2
    assert human.agents.most_audible(start) == 2


async def test_an_avatar_is_no_agent(livekit_server: LiveKitServer, room: str, human: Human) -> None:
    avatar = agent_for(livekit_server, room, "avatar", attributes={"lk.publish_on_behalf": "agent-1"})
    async with avatar:
        avatar.talk()
        assert await human.wait_until(lambda: human.others.audible() == ("avatar",), BUSY)
        assert human.agents.present() == ()


async def test_tells_its_own_voice_that_comes_back(
    livekit_server: LiveKitServer, room: str, human: Human
) -> None:
    """The fake agent has the human's voice: an echo, as far as the human can tell."""
    agent = Human(access(livekit_server), room, "agent-1", kind="agent")
    async with agent:
        human.talk()
        assert await agent.wait_until(lambda: agent.others.audible() == ("human",), BUSY)
        assert human.echo.audible() == ()
        agent.talk()
        assert await human.wait_until(lambda: human.echo.audible() == ("agent-1",), BUSY)


async def test_comes_back_under_another_identity(
    livekit_server: LiveKitServer, room: str, human: Human
) -> None:
    async with agent_for(livekit_server, room) as agent:
        agent.talk()
        await human.rejoin("somebody-else")
        assert await agent.wait_until(lambda: agent.others.present() == ("somebody-else",), BUSY)
        assert await human.wait_settled(BUSY, steady=0.2)


async def test_reconnects_after_a_restart_of_the_server(make_livekit_server: MakeServer, room: str) -> None:
    server = await asyncio.to_thread(make_livekit_server)
    human, agent = Human(access(server), room, "human"), agent_for(server, room)
    async with human, agent:
        agent.talk()
        assert await human.wait_audible(BUSY) is not None
        killed = time.monotonic()
        server.kill()
        assert await human.wait_until(lambda: not human.connected and not human.agents.present(), BUSY)
        await asyncio.to_thread(server.start)
        assert await human.wait_settled(30, steady=0.5)
        silence = human.agents.longest_silence(killed)
        assert silence is not None
        assert silence.start - killed < 2.0
        assert What.RECONNECTED in [h.what for h in human.history]


async def test_joins_anew_when_the_sdk_gave_up(make_livekit_server: MakeServer, room: str) -> None:
    server = await asyncio.to_thread(make_livekit_server)
    async with (
        Human(access(server), room, "human") as human,
        Human(access(server), room, "other", rejoin=Rejoin.NEVER) as other,
    ):
        server.kill()
        assert await human.wait_until(lambda: What.LOST in [h.what for h in human.history], 60)
        assert await other.wait_until(lambda: What.LOST in [h.what for h in other.history], 60)
        await asyncio.to_thread(server.start)
        assert await human.wait_until(lambda: human.connected, 30)
        assert not other.connected


async def test_stays_away_when_removed(livekit_server: LiveKitServer, room: str, human: Human) -> None:
    from livekit import api

    async with api.LiveKitAPI(livekit_server.http_url, livekit_server.key, livekit_server.secret) as server:
        await server.room.remove_participant(api.RoomParticipantIdentity(room=room, identity="human"))
    assert await human.wait_until(lambda: What.LOST in [h.what for h in human.history], BUSY)
    assert not human.connected


async def test_a_refusal_is_told(livekit_server: LiveKitServer, room: str) -> None:
    stranger = Human(Access(livekit_server.url, "nobody", "x" * 32), room)
    with pytest.raises(JoinFailed, match="ws://127"):
        await stranger.join()
    assert "xxx" not in repr(Access(livekit_server.url, "nobody", "x" * 32))
    await stranger.leave()


async def test_giving_up_leaves_nobody_behind(livekit_server: LiveKitServer, room: str, human: Human) -> None:
    """The connection was under way, so it comes to be; then it is ended."""
    hasty = Human(access(livekit_server), room, "hasty")
    with pytest.raises(JoinFailed, match="within"):
        await hasty.join(timeout=0.001)
    assert rtc_connection.given_up
    assert await human.wait_until(lambda: not rtc_connection.given_up, BUSY)
    assert await human.wait_until(lambda: human.others.present() == (), BUSY)
    assert not hasty.connected
