"""The voice agent that ships, guarded as the demo runs it: what a human in the room really hears."""

from __future__ import annotations

import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from supervisor.cli.human import Access, Human
from tests.livekit.guarded import AGENT, GuardedWorker, StandInDaemon
from tests.livekit.server import LiveKitServer

GREETING = 1.0
"""Seconds of greeting that a caller must get to hear, at the least."""


@pytest.fixture
async def daemon(runtime_dir: Path) -> AsyncIterator[StandInDaemon]:
    async with StandInDaemon(runtime_dir / "guard.sock") as daemon:
        yield daemon


async def _hears_a_greeting(human: Human, since: float) -> bool:
    def greeted() -> bool:
        return any(said.seconds >= GREETING for said in human.agents.utterances(since))

    return await human.wait_until(greeted, timeout=8)


async def test_it_greets_every_caller_and_plays_back_what_it_hears(
    daemon: StandInDaemon, livekit_server: LiveKitServer, tmp_path: Path
) -> None:
    script = tmp_path / "voice.py"
    shutil.copy(AGENT / "voice.py", script)
    access = Access(livekit_server.url, livekit_server.key, livekit_server.secret)
    with GuardedWorker(script, daemon.path, livekit_server, name="Agent_66"):
        await daemon.registered()
        since = time.monotonic()
        async with Human(access, "room", "alice", dispatch=["Agent_66"]) as human:
            assert await _hears_a_greeting(human, since)

            spoke = time.monotonic()
            await human.say(0.8)
            assert await human.wait_until(lambda: bool(human.echo.utterances(spoke)), timeout=8)
            assert human.echo.utterances(spoke)[0].start - spoke > 0.8

            for identity in ("alice", "bob"):
                since = time.monotonic()
                await human.rejoin(identity)
                assert await _hears_a_greeting(human, since)

            human.talk()
            assert await human.wait_until(lambda: bool(human.echo.audible(0.2)), timeout=8)
            async with Human(access, "room", "carol") as second:
                since = time.monotonic()
                await human.wait_until(lambda: time.monotonic() - since > 3.0, timeout=8)
                assert second.agents.present() == human.agents.present()
                assert len(human.agents.present()) == 1
            # Nothing is said to the second caller, and the first hears their echo without a gap.
            silence = human.echo.longest_silence(since)
            assert silence is None or silence.seconds < 0.5
        assert len(daemon.requests()) == 1
