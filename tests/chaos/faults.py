"""What is done to the world, one fault at a time or two at once.

One rule: a fault returns when it is over, so that from then on everything has to become well by itself.
What it does is drawn from the generator that it is handed, and from nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from supervisor.cli.human import Human, JoinFailed
from tests.chaos.world import (
    AGENT_IDS,
    GRACE,
    HEARTBEAT,
    KILL,
    RESYNC,
    ROOMS,
    SCRIPT,
    World,
    comes,
    send,
)
from tests.livekit.relay import Fate
from tests.livekit.stand import AGENTS

START = 25.0
"""Seconds that a worker may take to start on two cores that others use, too."""
ROGUE_WITHIN = 15.0
"""Seconds: it is looked for every 5, and whoever looks may have been stopped for as long."""


Make = Callable[[World, random.Random], Coroutine[Any, Any, None]]


@dataclass(frozen=True)
class Fault:
    kind: str
    befalls: str
    """Two at once never befall the same."""
    make: Make
    within: float
    """Seconds after its end in which every caller hears exactly one agent."""
    blind: float = 0.0
    """Seconds after its end for which the daemon may not see what happens in a room."""
    alone: bool = False
    told: bool = False
    """LiveKit tells of it by webhooks."""


# --- the daemon -----------------------------------------------------------------------------------


async def daemon_killed(world: World, rng: random.Random) -> None:
    await world.kill_daemon()
    await asyncio.sleep(rng.choice([0.0, 0.5, 3.0]))
    await world.start_daemon()


async def daemon_handed_over(world: World, rng: random.Random) -> None:
    await world.hand_over()
    await world.start_daemon()


async def daemon_stopped(world: World, rng: random.Random) -> None:
    pid = world.daemon_pid
    send(pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(rng.uniform(1.0, 5.0))
    finally:
        send(pid, signal.SIGCONT)


# --- workers and jobs -----------------------------------------------------------------------------


async def worker_killed(world: World, rng: random.Random) -> None:
    world.signal_worker(rng.choice(AGENT_IDS), signal.SIGKILL)


async def all_workers_killed(world: World, rng: random.Random) -> None:
    for agent in AGENT_IDS:
        world.signal_worker(agent, signal.SIGKILL)


async def worker_stopped(world: World, rng: random.Random) -> None:
    """For good: it has to be replaced."""
    world.signal_worker(rng.choice(AGENT_IDS), signal.SIGSTOP)
    await asyncio.sleep(HEARTBEAT + KILL)


async def worker_paused(world: World, rng: random.Random) -> None:
    """Not for so long that it would count as dead."""
    agent = rng.choice(AGENT_IDS)
    world.signal_worker(agent, signal.SIGSTOP)
    try:
        await asyncio.sleep(rng.uniform(0.2, HEARTBEAT / 3))
    finally:
        world.signal_worker(agent, signal.SIGCONT)


async def worker_restarted(world: World, rng: random.Random) -> None:
    """By the operator, without waiting for calls."""
    await world.command("restart", agent=rng.choice(AGENT_IDS), now=True)


async def job_killed(world: World, rng: random.Random) -> None:
    await world.break_job(rng.choice(ROOMS), "die")


async def job_hung(world: World, rng: random.Random) -> None:
    await world.break_job(rng.choice(ROOMS), "hang")
    await asyncio.sleep(HEARTBEAT)


# --- LiveKit --------------------------------------------------------------------------------------


async def livekit_killed(world: World, rng: random.Random) -> None:
    await asyncio.to_thread(world.stand.server.kill)
    await asyncio.sleep(rng.choice([0.0, 1.0, 4.0]))
    await asyncio.to_thread(world.stand.server.start)


async def livekit_restarted(world: World, rng: random.Random) -> None:
    await asyncio.to_thread(world.stand.server.stop, 1.0)
    await asyncio.to_thread(world.stand.server.start)


async def livekit_stopped(world: World, rng: random.Random) -> None:
    pid = world.stand.server.pid
    send(pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(rng.uniform(0.5, 4.0))
    finally:
        send(pid, signal.SIGCONT)


# --- more agents than there should be -------------------------------------------------------------


async def duplicate_dispatches(world: World, rng: random.Random) -> None:
    rooms = [rng.choice(ROOMS) for _ in range(rng.randint(1, 8))]
    await asyncio.gather(*(world.dispatch(room) for room in rooms))


async def unguarded_worker(world: World, rng: random.Random) -> None:
    """One of our name, that nobody supervises, takes a job in a room with an agent; then it is gone."""
    room = rng.choice(ROOMS)
    guarded = world.stand.relay.agents(room)
    async with world.stand.unguarded_worker():
        for _ in range(8):
            await world.dispatch(room)
            await asyncio.sleep(0.5)
            if world.stand.relay.agents(room) - guarded:
                break
        await asyncio.sleep(1.5)


async def loose_agent(world: World, rng: random.Random) -> None:
    """Somebody joins as an agent that no dispatch has asked for, and speaks."""
    room = rng.choice(ROOMS)
    loose = Human(
        world.stand.daemon.access, room, f"loose-{rng.getrandbits(32):08x}", kind="agent", pitch=523.0
    )
    with contextlib.suppress(JoinFailed):
        await loose.join()
        loose.talk()
        await loose.wait_until(lambda: not loose.connected, RESYNC + 2.0)
    await loose.leave()


async def rogue(world: World, rng: random.Random) -> None:
    """A second process for an agent ID; it has to be gone after the next scan."""
    async with _rogue(world, rng) as process:
        within = ROGUE_WITHIN * world.patience
        try:
            await asyncio.wait_for(process.wait(), within)
        except TimeoutError:
            raise StillThere(f"the rogue {process.pid} was not ended within {within:g} s") from None


class StillThere(Exception):
    """Something that had to go has not."""


@contextlib.asynccontextmanager
async def _rogue(world: World, rng: random.Random) -> AsyncIterator[asyncio.subprocess.Process]:
    server = world.stand.server
    if rng.random() < 0.5:
        argv = [sys.executable, str(SCRIPT), "start"]
        more = {"LIVEKIT_URL": server.url, "LIVEKIT_API_KEY": server.key, "LIVEKIT_API_SECRET": server.secret}
    else:
        argv = ["sleep", "600"]
        more = {
            "LIVEKIT_SUPERVISOR_AGENT_ID": rng.choice(AGENT_IDS),
            "LIVEKIT_SUPERVISOR_STATE": str(world.stand.daemon.state),
        }
    process = await asyncio.create_subprocess_exec(
        *argv,
        cwd=AGENTS,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, **more},
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


# --- callers --------------------------------------------------------------------------------------


async def human_returns(world: World, rng: random.Random) -> None:
    await _away(world, rng, rng.uniform(0.0, GRACE - 2.0))


async def human_returns_late(world: World, rng: random.Random) -> None:
    """When the job has given up waiting."""
    await _away(world, rng, GRACE + rng.uniform(0.5, 3.0))


async def _away(world: World, rng: random.Random, seconds: float) -> None:
    human = world.humans[rng.choice(ROOMS)]
    renamed = f"{human.room}-{rng.getrandbits(24):06x}" if rng.random() < 0.5 else None
    await human.leave()
    await asyncio.sleep(seconds)
    await comes(human, renamed)


# --- webhooks -------------------------------------------------------------------------------------


def webhooks(fate: Fate) -> Make:
    """For a while, some or all webhooks meet this fate; whatever else happens, happens meanwhile."""

    async def make(world: World, rng: random.Random) -> None:
        share, drawn = rng.choice([0.5, 1.0]), random.Random(rng.getrandbits(32))
        relay = world.stand.relay
        relay.fate = lambda: fate if drawn.random() < share else Fate.PASSED
        try:
            await asyncio.sleep(rng.uniform(4.0, 8.0))
        finally:
            relay.fate = lambda: Fate.PASSED

    return make


FAULTS = (
    Fault("daemon killed", "daemon", daemon_killed, within=5.0, blind=2.0),
    Fault("daemon handed over", "daemon", daemon_handed_over, within=5.0, blind=2.0),
    Fault("daemon stopped", "daemon", daemon_stopped, within=5.0, blind=2.0),
    Fault("worker killed", "worker", worker_killed, within=START, told=True),
    Fault("all workers killed", "worker", all_workers_killed, within=START, told=True),
    Fault("worker stopped", "worker", worker_stopped, within=START),
    Fault("worker paused", "worker", worker_paused, within=3.0),
    Fault("worker restarted", "worker", worker_restarted, within=START, alone=True),
    Fault("job killed", "job", job_killed, within=5.0, told=True),
    Fault("job hung", "job", job_hung, within=6.0, told=True),
    Fault("LiveKit killed", "livekit", livekit_killed, within=25.0, blind=1.0, told=True),
    Fault("LiveKit restarted", "livekit", livekit_restarted, within=25.0, blind=1.0, told=True),
    Fault("LiveKit stopped", "livekit", livekit_stopped, within=15.0, blind=6.0),
    Fault("duplicate dispatches", "room", duplicate_dispatches, within=3.0),
    Fault("unguarded worker", "room", unguarded_worker, within=5.0, alone=True),
    Fault("loose agent", "room", loose_agent, within=5.0, told=True),
    Fault("rogue", "process", rogue, within=5.0),
    Fault("human returns", "human", human_returns, within=5.0, told=True),
    Fault("human returns late", "human", human_returns_late, within=8.0, told=True),
    Fault("webhooks lost", "webhook", webhooks(Fate.LOST), within=RESYNC + 3.0, blind=RESYNC + 1.0),
    Fault("webhooks refused", "webhook", webhooks(Fate.REFUSED), within=RESYNC + 3.0, blind=RESYNC + 1.0),
    Fault("webhooks doubled", "webhook", webhooks(Fate.DOUBLED), within=3.0),
)
