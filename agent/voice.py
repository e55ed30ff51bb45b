"""The voice agent that ships: it greets each caller and plays back what it hears, a second later.

It needs no key and no model, so that sound can be proven to travel both ways.  An ordinary LiveKit
agent: it knows nothing of being supervised.  With ``LETTA_BASE_URL`` and ``LETTA_AGENT_ID`` set
(``LETTA_API_KEY`` if the server wants one), what a caller types into the chat is answered by that Letta
agent, in text; its voice stays the echo, since speech would need models.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import math
import os
import time
import urllib.request
from array import array
from collections.abc import Iterable

from livekit import rtc
from livekit.agents import AgentServer, AutoSubscribe, JobContext, JobProcess, cli
from livekit.agents.job import DEFAULT_PARTICIPANT_KINDS

RATE = 48_000
DELAY = 1.0
"""Seconds from a caller's word to its echo."""
FRAME_MS = 40
QUEUE_MS = 120
AUDIBLE = 200
"""Samples that stay below are silence, and not worth playing back."""
SUBSCRIBE_TIMEOUT = 5.0
GREETING = ((440, 0.16), (590, 0.2), (880, 0.14), (0, 0.08), (520, 0.2), (700, 0.16), (470, 0.28))
"""Pitch in hertz and length in seconds of each syllable; 0 is a pause."""
CHAT_TOPIC = "lk.chat"
LETTA_TIMEOUT = 60.0

logger = logging.getLogger("voice")
server = AgentServer()


def prewarm(_process: JobProcess) -> None:
    """Before the first caller is there, and so not while one waits."""
    greeting()


server.setup_fnc = prewarm


@server.rtc_session()
async def entrypoint(ctx: JobContext) -> None:
    voice = Voice(ctx.room)
    ctx.add_shutdown_callback(voice.aclose)
    await ctx.connect(auto_subscribe=AutoSubscribe.AUDIO_ONLY)
    answer_chat_with_letta(ctx.room)
    await voice.start()


class Voice:
    """Talks with one caller at a time: the first to come; when that one leaves, the next."""

    def __init__(self, room: rtc.Room) -> None:
        self._room = room
        self._caller: str | None = None
        self._speaker: Speaker | None = None
        self._ear: asyncio.Task[None] | None = None
        self._heard = ""
        room.on("participant_connected", self._on_participant_connected)
        room.on("participant_disconnected", self._on_participant_disconnected)
        room.on("track_subscribed", self._on_track_subscribed)
        room.on("track_unsubscribed", self._on_track_unsubscribed)

    async def start(self) -> None:
        speaker = Speaker()
        publication = await speaker.publish(self._room)
        self._speaker = speaker
        if self._callers():
            # Somebody has been waiting: what is said before they can hear it would be lost.
            heard = asyncio.ensure_future(publication.wait_for_subscription())
            await asyncio.wait({heard}, timeout=SUBSCRIBE_TIMEOUT)
            heard.cancel()
        if self._caller is None:
            self._turn_to(self._callers()[:1])

    async def aclose(self) -> None:
        self._stop_listening()
        if self._speaker is not None:
            await self._speaker.aclose()

    def _callers(self) -> list[rtc.RemoteParticipant]:
        everyone = self._room.remote_participants.values()
        return [p for p in everyone if p.kind in DEFAULT_PARTICIPANT_KINDS]

    def _turn_to(self, callers: list[rtc.RemoteParticipant]) -> None:
        """Greet the first of them, and listen to nobody else."""
        self._stop_listening()
        self._caller = callers[0].identity if callers else None
        if callers and self._speaker is not None:
            self._speaker.say(greeting())
            self._listen_to(callers[0])

    def _on_participant_connected(self, _participant: rtc.RemoteParticipant) -> None:
        if self._caller is None and self._speaker is not None:
            self._turn_to(self._callers()[:1])

    def _on_participant_disconnected(self, participant: rtc.RemoteParticipant) -> None:
        if participant.identity == self._caller:
            self._turn_to(self._callers()[:1])

    # --- listening ----------------------------------------------------------------------------

    def _listen_to(self, caller: rtc.RemoteParticipant) -> None:
        for publication in caller.track_publications.values():
            if publication.track is not None:
                self._on_track_subscribed(publication.track, publication, caller)

    def _on_track_subscribed(
        self, track: rtc.Track, _publication: rtc.RemoteTrackPublication, participant: rtc.RemoteParticipant
    ) -> None:
        if track.kind == rtc.TrackKind.KIND_AUDIO and participant.identity == self._caller:
            self._stop_listening()
            self._heard = track.sid
            self._ear = asyncio.create_task(self._listen(track))

    def _on_track_unsubscribed(
        self, track: rtc.Track, _publication: rtc.RemoteTrackPublication, participant: rtc.RemoteParticipant
    ) -> None:
        if participant.identity == self._caller and track.sid == self._heard:
            self._stop_listening()

    def _stop_listening(self) -> None:
        ear, self._ear = self._ear, None
        if ear is not None:
            ear.cancel()

    async def _listen(self, track: rtc.Track) -> None:
        stream = rtc.AudioStream(track, sample_rate=RATE, num_channels=1, frame_size_ms=FRAME_MS)
        try:
            async for event in stream:
                samples = event.frame.data
                if self._speaker is not None and max(samples) > AUDIBLE:
                    self._speaker.play(event.frame, time.monotonic() + DELAY)
        finally:
            await stream.aclose()


class Speaker:
    """One published track, and what is to be heard on it: never two sounds at once."""

    def __init__(self) -> None:
        self._source = rtc.AudioSource(RATE, 1, queue_size_ms=QUEUE_MS)
        self._queue: asyncio.Queue[tuple[float, rtc.AudioFrame]] = asyncio.Queue()
        self._player = asyncio.create_task(self._play())

    async def publish(self, room: rtc.Room) -> rtc.LocalTrackPublication:
        track = rtc.LocalAudioTrack.create_audio_track("voice", self._source)
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
        return await room.local_participant.publish_track(track, options)

    def say(self, frames: Iterable[rtc.AudioFrame]) -> None:
        """At once, instead of whatever was still to be played."""
        while not self._queue.empty():
            self._queue.get_nowait()
        self._source.clear_queue()
        for frame in frames:
            self.play(frame, 0.0)

    def play(self, frame: rtc.AudioFrame, at: float) -> None:
        """Not before ``at``, and after what was handed over before."""
        self._queue.put_nowait((at, frame))

    async def aclose(self) -> None:
        self._player.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._player
        await self._source.aclose()

    async def _play(self) -> None:
        while True:
            at, frame = await self._queue.get()
            await asyncio.sleep(max(0.0, at - time.monotonic()))
            await self._source.capture_frame(frame)


@functools.cache
def greeting() -> tuple[rtc.AudioFrame, ...]:
    samples = array("h")
    for pitch, seconds in GREETING:
        samples.extend(_syllable(pitch, int(seconds * RATE)))
    step = RATE * FRAME_MS // 1000
    chunks = (samples[i : i + step] for i in range(0, len(samples), step))
    return tuple(rtc.AudioFrame(chunk.tobytes(), RATE, 1, len(chunk)) for chunk in chunks)


def _syllable(pitch: int, length: int) -> array[int]:
    """A tone with one overtone that swells and fades, as a vowel does."""
    turn = 2 * math.pi * pitch / RATE
    return array(
        "h",
        (
            int(8_000 * math.sin(math.pi * i / length) * (math.sin(turn * i) + 0.4 * math.sin(2 * turn * i)))
            for i in range(length)
        ),
    )


# --- Letta, in text -------------------------------------------------------------------------------


def answer_chat_with_letta(room: rtc.Room) -> None:
    base, agent = os.environ.get("LETTA_BASE_URL"), os.environ.get("LETTA_AGENT_ID")
    if not base or not agent:
        return
    url = f"{base.rstrip('/')}/v1/agents/{agent}/messages"
    answering: set[asyncio.Task[None]] = set()

    async def answer(reader: rtc.TextStreamReader, caller: str) -> None:
        try:
            text = await asyncio.to_thread(ask_letta, url, await reader.read_all())
        except (OSError, ValueError) as error:
            logger.warning("letta did not answer", extra={"error": str(error)})
            return
        await room.local_participant.send_text(text, topic=CHAT_TOPIC, destination_identities=[caller])

    def on_text(reader: rtc.TextStreamReader, caller: str) -> None:
        task = asyncio.create_task(answer(reader, caller))
        answering.add(task)
        task.add_done_callback(answering.discard)

    room.register_text_stream_handler(CHAT_TOPIC, on_text)


def ask_letta(url: str, text: str) -> str:
    """The agent's words; blocks, so it is called in a thread."""
    body = json.dumps({"messages": [{"role": "user", "content": text}]}).encode()
    headers = {"Content-Type": "application/json"}
    if os.environ.get("LETTA_API_KEY"):
        headers["Authorization"] = f"Bearer {os.environ['LETTA_API_KEY']}"
    request = urllib.request.Request(url, body, headers)
    with urllib.request.urlopen(request, timeout=LETTA_TIMEOUT) as response:
        messages = json.load(response).get("messages", [])
    return "\n".join(
        m["content"]
        for m in messages
        if m.get("message_type") == "assistant_message" and isinstance(m.get("content"), str)
    )


if __name__ == "__main__":
    cli.run_app(server)
