"""What breaks under a call, and how long its human hears nobody: with real audio on a real server."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import psutil

from supervisor.cli.human import Human, What
from tests.bench.figures import Column, Table, spread, summary
from tests.bench.ground import Ground, livekit, supervised
from tests.livekit.server import LiveKitServer
from tests.livekit.supervised import Supervised, voice
from tests.ports import free_port

SOON = 40.0
LONGEST_DOWN = 10.0


@dataclass(frozen=True, slots=True)
class Call:
    """One human, with one agent, under one daemon."""

    server: LiveKitServer
    subject: Supervised
    human: Human

    async def settled(self) -> None:
        """Exactly one agent, heard for two seconds."""
        assert await self.human.wait_settled(SOON), self.subject.tail(30)

    async def worker(self) -> int:
        pid = (await self.subject.agent())["pid"]
        assert pid is not None
        return pid

    async def job(self) -> int:
        """The process of the room's job: of the worker's tree, the one that uses the network most."""
        room = await self.subject.room(self.human.room)
        assert room is not None
        tree = psutil.Process(await self.worker()).children(recursive=True)
        talking = [p for p in tree if any(c.type == 2 for c in p.net_connections("udp"))]
        assert len(talking) == 1, f"{len(talking)} processes have media"
        return talking[0].pid


async def run(ground: Ground) -> None:
    faults: list[tuple[str, Callable[[Call], Awaitable[None]], int]] = [
        ("worker killed", _worker_killed, ground.many(2, 10)),
        ("job killed", _job_killed, ground.many(2, 10)),
        ("job stopped (SIGSTOP)", _job_stopped, ground.many(1, 5)),
        ("worker stopped (SIGSTOP)", _worker_stopped, ground.many(1, 5)),
        ("daemon killed and started again", _daemon_killed, ground.many(1, 5)),
    ]
    table = Table(
        "A call heals",
        (*spread("s", 2), Column("two at once", "s", 2)),
        "The longest time in which the human heard nobody, sound with energy and not a list entry, until "
        "exactly one agent is heard again.  Two at once: the longest time in which more than one was heard.  "
        "Heartbeat timeout 5 s, kill after 3 s.",
    )
    async with _call(ground) as call:
        for name, fault, trials in faults:
            ground.progress(f"{name}, {trials} times")
            seconds, together = [], 0.0
            for _ in range(trials):
                await call.settled()
                since = time.monotonic()
                await fault(call)
                seconds.append(await _silence(call, since))
                await call.settled()
                together = max(together, call.human.agents.two_at_once(since))
            table.add(name, {**summary(seconds), "two at once": together})
    ground.report(table)
    await _restarts(ground)


@asynccontextmanager
async def _call(ground: Ground) -> AsyncIterator[Call]:
    port = free_port()
    restart = {"initial": "100ms", "stable_after": "5s"}
    agent = voice(heartbeat={"interval": "1s", "timeout": "5s"}, restart=restart)
    async with (
        livekit(ground, webhook_urls=[f"http://127.0.0.1:{port}/livekit/webhook"]) as server,
        supervised(ground, server, [agent], port=port) as subject,
        subject.human("call") as human,
    ):
        human.talk()
        yield Call(server, subject, human)


async def _silence(call: Call, since: float) -> float:
    """The longest time from then on in which nobody was heard, once somebody is heard again for long."""
    await asyncio.sleep(0.5)
    deadline = time.monotonic() + SOON
    while time.monotonic() < deadline:
        gap = call.human.agents.longest_silence(since)
        audible = call.human.agents.audible(0.5)
        if audible and (gap is None or gap.end < time.monotonic() - 1.5):
            return 0.0 if gap is None else gap.end - max(gap.start, since)
        await asyncio.sleep(0.05)
    raise AssertionError(f"nobody is heard {SOON:g} s later\n{call.subject.tail(30)}")


async def _worker_killed(call: Call) -> None:
    os.kill(await call.worker(), signal.SIGKILL)


async def _job_killed(call: Call) -> None:
    os.kill(await call.job(), signal.SIGKILL)


async def _job_stopped(call: Call) -> None:
    os.kill(await call.job(), signal.SIGSTOP)
    await _gone(call)


async def _worker_stopped(call: Call) -> None:
    """Its job goes on: what counts is that the call is not hurt by the stop itself."""
    worker = await call.worker()
    os.kill(worker, signal.SIGSTOP)
    await call.subject.until(lambda s: s["agents"][0]["pid"] not in (None, worker), SOON)


async def _daemon_killed(call: Call) -> None:
    await call.subject.kill()
    await call.subject.start()


async def _gone(call: Call) -> None:
    """The agent that was there is not heard any more, for it has stopped."""
    await asyncio.sleep(1.5)


# --- restarts of LiveKit --------------------------------------------------------------------------


async def _restarts(ground: Ground) -> None:
    trials = ground.many(2, 10)
    table = Table(
        "LiveKit is killed and started again",
        (*spread("s", 2), Column("two at once", "s", 2)),
        f"{trials} times, away for 0 to {LONGEST_DOWN:g} s.  Without a supervisor two of three such restarts "
        "ended with two agents in the room, for good.",
        "one audible agent within 10 s of the human's reconnection, two never for over a second",
    )
    back, total, together = [], [], 0.0
    async with _call(ground) as call:
        for number in range(trials):
            down = LONGEST_DOWN * number / max(1, trials - 1)
            ground.progress(f"LiveKit away for {down:.1f} s")
            await call.settled()
            since = time.monotonic()
            await asyncio.to_thread(call.server.kill)
            await asyncio.sleep(down)
            await asyncio.to_thread(call.server.start)
            started = time.monotonic()
            assert await call.human.wait_until(lambda: call.human.connected, SOON), call.subject.tail(30)
            returned = [h.at for h in call.human.history if h.what in (What.JOINED, What.RECONNECTED)]
            joined = max(since, *returned)
            heard = await call.human.wait_audible(SOON, since=joined)
            assert heard is not None, call.subject.tail(30)
            await call.settled()
            back.append(heard - joined)
            total.append(heard - started)
            together = max(together, call.human.agents.two_at_once(since))
    row = {**summary(back), "two at once": together}
    table.add("from the human's reconnection to one audible agent", row)
    table.add("from LiveKit's start to one audible agent", summary(total))
    ground.report(table)
