"""Counters and histograms, seen from outside: what a fault moves, and that nothing had moved it before."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator

from tests.livekit.supervised import PACE, Supervised

SOON = 20.0


@contextlib.asynccontextmanager
async def moves(daemon: Supervised, name: str, within: float = SOON, **labels: str) -> AsyncIterator[None]:
    """What is done inside raises this counter, or the count of this histogram (``…_count``)."""
    before = await daemon.metric(name, labels)
    yield
    await rises_above(daemon, before, name, within, **labels)


async def rises_above(
    daemon: Supervised, before: float, name: str, within: float = SOON, **labels: str
) -> None:
    deadline = asyncio.get_running_loop().time() + within
    while await daemon.metric(name, labels) <= before:
        late = asyncio.get_running_loop().time() > deadline
        assert not late, f"{name}{labels} stays at {before:g}\n{daemon.tail()}"
        await asyncio.sleep(PACE)


async def command(daemon: Supervised, name: str, **arguments: object) -> None:
    await asyncio.to_thread(daemon.client.command, name, arguments)


async def kill_worker(daemon: Supervised, number: int = 0) -> None:
    """As soon as there is one."""
    status = await daemon.until(lambda s: s["agents"][number]["pid"] is not None, SOON)
    pid = status["agents"][number]["pid"]
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
