"""Listening in one LiveKit room: its participants and their audio, written into timelines.

One rule: frames of a track that has left are not listened to.  The stream goes on delivering them, since
the transceiver is used again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from supervisor.cli.hearing import Hearing
from supervisor.cli.sounds import energy, share_of_pitch
from supervisor.core.model import ATTRIBUTE_PUBLISH_ON_BEHALF

if TYPE_CHECKING:
    from livekit import rtc

LISTEN_RATE = 8_000
"""Enough for energy and for the pitch of a voice, and cheap."""

_FRAME_MS = 20
_CLOSING = 3.0

_SUBSCRIBED_BY = 2.0
"""Seconds within which a published track is ours.  After a full reconnection the SDK now and then never
subscribes to one that was published at just that moment; asking anew helps."""

_BETWEEN = 0.1


class Noticed(StrEnum):
    CAME = "came"
    WENT = "went"
    HEARD = "heard"


@dataclass(slots=True)
class Timelines:
    """What a listener remembers from one connection to the next."""

    agents: Hearing
    """Agents in their own right: of kind AGENT, avatars left out."""
    others: Hearing
    """Everybody else."""
    echo: Hearing
    """Of the agents' sound, what has the listener's own pitch."""
    pitch: float
    notice: Callable[[Noticed, str, bool], None]
    """Told of who came, went or was heard again; the flag says whether it is an agent."""

    def of(self, participant: rtc.RemoteParticipant) -> Hearing:
        return self.agents if is_agent(participant) else self.others


@dataclass(slots=True)
class _Listening:
    who: str
    task: asyncio.Task[None]


@dataclass(slots=True)
class Ears:
    """The ears of one connection.  To be attached before it connects, closed after it has ended."""

    room: rtc.Room
    timelines: Timelines
    _listening: dict[str, _Listening] = field(default_factory=dict)
    _asking: set[asyncio.Task[None]] = field(default_factory=set)
    _ending: set[asyncio.Task[None]] = field(default_factory=set)
    _deaf: bool = False

    def attach(self) -> None:
        self.room.on("participant_connected", self._came)
        self.room.on("participant_disconnected", self._went)
        self.room.on("track_published", self._published)
        self.room.on("track_subscribed", self._subscribed)
        self.room.on("track_unsubscribed", self._unsubscribed)

    def look_around(self) -> None:
        """Those who were there before us; nobody announces them."""
        for participant in self.room.remote_participants.values():
            self._came(participant)
            for publication in participant.track_publications.values():
                self._published(publication, participant)

    async def aclose(self) -> None:
        """Hear nothing more, from now on; then let go of the streams."""
        self._deaf = True
        for sid in list(self._listening):
            self._stop(sid)
        for task in self._asking:
            task.cancel()
        self._ending |= self._asking
        for hearing in (self.timelines.agents, self.timelines.others, self.timelines.echo):
            for who in hearing.present():
                hearing.went(who)
        if self._ending:
            await asyncio.wait(self._ending, timeout=_CLOSING)

    def _came(self, participant: rtc.RemoteParticipant) -> None:
        if self._deaf or participant.identity in self.timelines.of(participant).present():
            return
        self.timelines.of(participant).came(participant.identity)
        self.timelines.notice(Noticed.CAME, participant.identity, is_agent(participant))

    def _went(self, participant: rtc.RemoteParticipant) -> None:
        for sid in [s for s, listening in self._listening.items() if listening.who == participant.identity]:
            self._stop(sid)
        if self._deaf:
            return
        self.timelines.of(participant).went(participant.identity)
        self.timelines.notice(Noticed.WENT, participant.identity, is_agent(participant))

    def _published(self, publication: rtc.RemoteTrackPublication, who: rtc.RemoteParticipant) -> None:
        if not self._deaf:
            self._asking.add(task := asyncio.create_task(self._ask_anew(publication, who)))
            task.add_done_callback(self._asking.discard)

    async def _ask_anew(self, publication: rtc.RemoteTrackPublication, who: rtc.RemoteParticipant) -> None:
        await asyncio.sleep(_SUBSCRIBED_BY)
        if publication.track is None and who.track_publications.get(publication.sid) is publication:
            publication.set_subscribed(False)
            await asyncio.sleep(_BETWEEN)
            publication.set_subscribed(True)

    def _subscribed(
        self, track: rtc.Track, publication: rtc.RemoteTrackPublication, who: rtc.RemoteParticipant
    ) -> None:
        from livekit import rtc

        if self._deaf or track.kind != rtc.TrackKind.KIND_AUDIO:
            return
        self._came(who)
        self._stop(publication.sid)
        stream = rtc.AudioStream(track, sample_rate=LISTEN_RATE, num_channels=1, frame_size_ms=_FRAME_MS)
        hearing, agent = self.timelines.of(who), is_agent(who)
        task = asyncio.create_task(self._listen(stream, hearing, who.identity, agent))
        self._listening[publication.sid] = _Listening(who.identity, task)

    def _unsubscribed(
        self, track: rtc.Track | None, publication: rtc.RemoteTrackPublication, who: rtc.RemoteParticipant
    ) -> None:
        self._stop(publication.sid)

    def _stop(self, sid: str) -> None:
        listening = self._listening.pop(sid, None)
        if listening is None:
            return
        listening.task.cancel()
        self._ending.add(listening.task)
        listening.task.add_done_callback(self._ending.discard)
        if not any(other.who == listening.who for other in self._listening.values()):
            for hearing in (self.timelines.agents, self.timelines.others, self.timelines.echo):
                hearing.hushed(listening.who)

    async def _listen(self, stream: rtc.AudioStream, hearing: Hearing, who: str, agent: bool) -> None:
        try:
            async for event in stream:
                samples = event.frame.data
                level = energy(samples)
                if hearing.frame(who, level, event.frame.duration):
                    self.timelines.notice(Noticed.HEARD, who, agent)
                if agent and share_of_pitch(samples, self.timelines.pitch, LISTEN_RATE) > 0.5:
                    self.timelines.echo.frame(who, level, event.frame.duration)
        finally:
            await stream.aclose()


def is_agent(participant: rtc.RemoteParticipant) -> bool:
    from livekit import rtc

    kind_is_agent = participant.kind == rtc.ParticipantKind.PARTICIPANT_KIND_AGENT
    return kind_is_agent and ATTRIBUTE_PUBLISH_ON_BEHALF not in participant.attributes
