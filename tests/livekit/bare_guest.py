"""A participant that makes sound, and nothing more; also as a process of its own, to be killed.

As a program it reads URL and token from standard input, and says when it has joined.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

from livekit import rtc

_RATE = 48_000
_FRAME = b"\x00\x10" * (_RATE // 10)


class BareGuest:
    """The server lists a track only once sound comes through it."""

    def __init__(self) -> None:
        self._room = rtc.Room()
        self._source = rtc.AudioSource(_RATE, 1)
        self._sounding: asyncio.Task[None] | None = None

    async def join(self, url: str, token: str) -> None:
        await self._room.connect(url, token)
        track = rtc.LocalAudioTrack.create_audio_track("voice", self._source)
        await self._room.local_participant.publish_track(track)
        self._sounding = asyncio.create_task(self._sound())

    async def leave(self) -> None:
        if self._sounding is not None:
            self._sounding.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sounding
        await self._room.disconnect()
        await self._source.aclose()

    async def _sound(self) -> None:
        while True:
            frame = rtc.AudioFrame(_FRAME, sample_rate=_RATE, num_channels=1, samples_per_channel=_RATE // 10)
            await self._source.capture_frame(frame)


async def main(url: str, token: str) -> None:
    await BareGuest().join(url, token)
    print("joined", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.stdin.readline().strip(), sys.stdin.readline().strip()))
