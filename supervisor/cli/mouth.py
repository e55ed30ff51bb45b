"""Speaking in one LiveKit room: a published track, and sound on it when asked.

One rule: sound is handed over no faster than it is played, so that silence comes at once when asked for.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from supervisor.cli.sounds import RATE, syllable

if TYPE_CHECKING:
    from livekit import rtc

_CHUNKS = 6
"""Frames a syllable is handed over in: 40 ms each."""

_QUEUE_MS = 120


class Mouth:
    """The voice of one connection.  Publish once, then talk and hush as often as wanted."""

    def __init__(self, pitch: float) -> None:
        self._pitch = pitch
        self._source: rtc.AudioSource | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def talking(self) -> bool:
        return self._task is not None

    async def publish(self, room: rtc.Room) -> None:
        from livekit import rtc

        self._source = rtc.AudioSource(RATE, 1, queue_size_ms=_QUEUE_MS)
        track = rtc.LocalAudioTrack.create_audio_track("voice", self._source)
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
        await room.local_participant.publish_track(track, options)

    def talk(self) -> None:
        if self._task is None and self._source is not None:
            self._task = asyncio.create_task(self._talk(self._source))

    async def hush(self) -> None:
        task, self._task = self._task, None
        if task is None or self._source is None:
            return
        task.cancel()
        await asyncio.wait([task])
        self._source.clear_queue()

    async def aclose(self) -> None:
        await self.hush()
        if self._source is not None:
            await self._source.aclose()
            self._source = None

    async def _talk(self, source: rtc.AudioSource) -> None:
        from livekit import rtc

        sound = syllable(self._pitch)
        step = -(-len(sound) // _CHUNKS)
        frames = [
            rtc.AudioFrame(chunk.tobytes(), RATE, 1, len(chunk))
            for chunk in (sound[i : i + step] for i in range(0, len(sound), step))
        ]
        while True:
            for frame in frames:
                await source.capture_frame(frame)
