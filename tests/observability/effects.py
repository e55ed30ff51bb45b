"""Metrics, seen from outside: what a fault moves, and that nothing had moved it before."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from tests.livekit.supervised import PACE, Supervised
from tests.observability.odd_livekit import OddLiveKit

SOON = 20.0
SLEEPER = {"id": "sleeper", "name": "S", "command": ["sleep", "600"], "restart": {"initial": "100ms"}}


@contextlib.asynccontextmanager
async def supervised(
    folder: Path,
    runtime: Path,
    livekit: OddLiveKit,
    agents: list[dict[str, Any]],
    *,
    inside: Sequence[str] = (),
    **settings: Any,
) -> AsyncIterator[Supervised]:
    subject = Supervised(folder, runtime, livekit, agents=agents, **settings)  # type: ignore[arg-type]
    access = {"url": livekit.url, "api_key": livekit.key, "api_secret": livekit.secret}
    subject.write(livekit={**access, "timeout": "300ms"})
    await subject.start(wait=False, inside=inside)
    try:
        await subject.until(lambda s: all(a["pid"] or a["state"] != "starting" for a in s["agents"]), 20)
        yield subject
    finally:
        await subject.close()


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


async def comes_to(daemon: Supervised, value: float, name: str, within: float = SOON, **labels: str) -> None:
    """The sum of its series with these labels."""
    deadline = asyncio.get_running_loop().time() + within
    while (now := await daemon.metric(name, labels)) != value:
        late = asyncio.get_running_loop().time() > deadline
        assert not late, f"{name}{labels} is {now:g}, not {value:g}\n{daemon.tail()}"
        await asyncio.sleep(PACE)


async def command(daemon: Supervised, name: str, **arguments: object) -> None:
    await asyncio.to_thread(daemon.client.command, name, arguments)


async def kill_worker(daemon: Supervised, number: int = 0) -> None:
    """As soon as there is one."""
    status = await daemon.until(lambda s: s["agents"][number]["pid"] is not None, SOON)
    pid = status["agents"][number]["pid"]
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


@contextlib.asynccontextmanager
async def second_process(daemon: Supervised, agent_id: str) -> AsyncIterator[None]:
    marks = {"LIVEKIT_SUPERVISOR_AGENT_ID": agent_id, "LIVEKIT_SUPERVISOR_STATE": str(daemon.state)}
    process = await asyncio.create_subprocess_exec("sleep", "600", env={**os.environ, **marks})
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
