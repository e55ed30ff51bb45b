"""What is asked for anew when the SDK did not subscribe to it, with the SDK's own room and people."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from livekit import rtc
from livekit.rtc._proto import participant_pb2, track_pb2

from agent_guard import subscriptions
from agent_guard.subscriptions import Subscriptions

MICROPHONE = rtc.TrackSource.SOURCE_MICROPHONE
CAMERA = rtc.TrackSource.SOURCE_CAMERA


class Publication(rtc.RemoteTrackPublication):
    """Without a server behind it; remembers what it was asked."""

    def __init__(self, sid: str, source: rtc.TrackSource.ValueType) -> None:
        info = track_pb2.TrackPublicationInfo(sid=sid, source=source)
        super().__init__(track_pb2.OwnedTrackPublication(info=info))
        self.asked: list[bool] = []
        self.anew = asyncio.Event()

    def set_subscribed(self, subscribed: bool) -> None:
        self.asked.append(subscribed)
        if subscribed:
            self.anew.set()


class Stage:
    """A room, and what happens in it."""

    def __init__(self) -> None:
        self.room = rtc.Room()
        self.subscriptions = Subscriptions(self.room)
        self._tracks = 0

    def comes(self, identity: str) -> rtc.RemoteParticipant:
        info = participant_pb2.ParticipantInfo(identity=identity)
        return self.room._create_remote_participant(participant_pb2.OwnedParticipant(info=info))

    def publishes(self, who: rtc.RemoteParticipant, source: rtc.TrackSource.ValueType) -> Publication:
        self._tracks += 1
        publication = Publication(f"TR_{self._tracks}", source)
        who._track_publications[publication.sid] = publication
        self.room.emit("track_published", publication, who)
        return publication

    def is_heard(self, who: rtc.RemoteParticipant, source: rtc.TrackSource.ValueType) -> None:
        track = rtc.RemoteAudioTrack(track_pb2.OwnedTrack())
        self.room.emit("track_subscribed", track, self.publishes(who, source), who)

    def goes(self, who: rtc.RemoteParticipant) -> None:
        self.room._remote_participants.pop(who.identity)


@pytest.fixture
async def stage(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    monkeypatch.setattr(subscriptions, "SUBSCRIBED_BY", 0.02)
    monkeypatch.setattr(subscriptions, "BETWEEN", 0.01)
    stage = Stage()
    yield stage
    stage.subscriptions.close()


async def asked_anew(publication: Publication) -> bool:
    async with asyncio.timeout(5):
        await publication.anew.wait()
    return publication.asked == [False, True]


async def test_of_the_same_human_only_what_was_wanted_is_asked_for_anew(stage: Stage) -> None:
    alice = stage.comes("alice")
    stage.is_heard(alice, MICROPHONE)
    stage.goes(alice)
    alice = stage.comes("alice")
    camera = stage.publishes(alice, CAMERA)
    assert await asked_anew(stage.publishes(alice, MICROPHONE))
    assert camera.asked == []


@pytest.mark.parametrize("published_first", [True, False])
async def test_whoever_takes_a_humans_place_is_heard_as_that_one_was(
    published_first: bool, stage: Stage
) -> None:
    alice = stage.comes("alice")
    stage.is_heard(alice, MICROPHONE)
    stage.goes(alice)
    bob = stage.comes("bob")
    if not published_first:
        stage.subscriptions.take_over("bob")
    camera, microphone = stage.publishes(bob, CAMERA), stage.publishes(bob, MICROPHONE)
    if published_first:
        stage.subscriptions.take_over("bob")
    assert await asked_anew(microphone)
    assert camera.asked == []


async def test_somebody_else_is_not_given_to_a_script_that_did_not_ask(stage: Stage) -> None:
    alice = stage.comes("alice")
    stage.is_heard(alice, MICROPHONE)
    other = stage.publishes(stage.comes("bob"), MICROPHONE)
    assert await asked_anew(stage.publishes(alice, MICROPHONE))
    assert other.asked == []


async def test_what_the_script_chose_among_a_humans_tracks_stays_when_they_take_over(stage: Stage) -> None:
    alice, bob = stage.comes("alice"), stage.comes("bob")
    stage.is_heard(alice, MICROPHONE)
    stage.is_heard(alice, CAMERA)
    stage.is_heard(bob, MICROPHONE)
    stage.goes(alice)
    camera = stage.publishes(bob, CAMERA)
    stage.subscriptions.take_over("bob")
    assert await asked_anew(stage.publishes(bob, MICROPHONE))
    assert camera.asked == []
