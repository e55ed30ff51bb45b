"""Joins rooms as fast as it can and makes itself heard, until it is removed or told to go; one after another.

A program of its own, so that its media and its delays are not those of who listens.  It reads a line with
the URL and a token for each visit, publishes a loud track at once, and writes a line when the visit is over.
With the word ``stay`` after the token it says ``in`` once it is heard, and stays until the input ends.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import json
import math
import sys
import time

from livekit import rtc

_RATE = 48_000
_SAMPLES = _RATE // 50
_PITCH = 500
_FRAME = array.array(
    "h", (int(12_000 * math.sin(2 * math.pi * _PITCH * n / _RATE)) for n in range(_SAMPLES))
).tobytes()
"""A whole number of waves, so that frames join without a click."""


class Visit:
    def __init__(self) -> None:
        self.room = rtc.Room()
        self.gone = asyncio.Event()
        self.published = False
        self._source = rtc.AudioSource(_RATE, 1, queue_size_ms=200)
        self._sounding: asyncio.Task[None] | None = None
        self.room.on("disconnected", lambda *_: self.gone.set())

    async def come(self, url: str, token: str) -> None:
        await self.room.connect(url, token)
        self._sounding = asyncio.create_task(self._sound())
        track = rtc.LocalAudioTrack.create_audio_track("voice", self._source)
        # It may be removed before it could publish; the SDK tells so in several ways.
        with contextlib.suppress(Exception):
            await asyncio.wait_for(asyncio.shield(self.room.local_participant.publish_track(track)), 5.0)
            self.published = True

    async def go(self) -> None:
        if self._sounding is not None:
            self._sounding.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sounding
        await self.room.disconnect()
        await self._source.aclose()

    async def _sound(self) -> None:
        while True:
            frame = rtc.AudioFrame(_FRAME, sample_rate=_RATE, num_channels=1, samples_per_channel=_SAMPLES)
            await self._source.capture_frame(frame)


async def main() -> None:
    staying: list[Visit] = []
    while line := await asyncio.to_thread(sys.stdin.readline):
        url, token, *stay = line.split()
        visit = Visit()
        started = time.monotonic()
        await visit.come(url, token)
        if stay:
            staying.append(visit)
            print("in", flush=True)
            continue
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(visit.gone.wait(), 60)
        told = {"seconds": time.monotonic() - started, "published": visit.published}
        await visit.go()
        print(json.dumps(told), flush=True)
    for visit in staying:
        await visit.go()


if __name__ == "__main__":
    asyncio.run(main())
