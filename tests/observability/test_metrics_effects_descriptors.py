"""A daemon without a free file descriptor cannot look at anything: its loops fail, say so, and go on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

from tests.livekit.supervised import Supervised
from tests.observability.effects import SLEEPER, supervised
from tests.observability.odd_livekit import OddLiveKit

NONE_FREE = 1
"""Every number below it is taken, and what is open stays open."""


@contextlib.contextmanager
def without_descriptors(pid: int) -> Iterator[None]:
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (NONE_FREE, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))


async def says(daemon: Supervised, *lines: str) -> None:
    deadline = asyncio.get_running_loop().time() + 15
    while not all(line in daemon.log.read_text() for line in lines):
        assert asyncio.get_running_loop().time() < deadline, daemon.tail(200)
        await asyncio.sleep(0.05)


async def test_loops_fail_are_counted_and_go_on(
    livekit: OddLiveKit, tmp_path: Path, runtime_dir: Path
) -> None:
    async with supervised(tmp_path / "daemon", runtime_dir, livekit, [SLEEPER]) as daemon:
        before = (await daemon.agent())["pid"]
        assert before is not None
        with without_descriptors(daemon.pid):
            os.kill(before, signal.SIGKILL)
            await says(daemon, '"where": "reconcile workers"', '"where": "process scan"')
        after = await daemon.until(lambda s: s["agents"][0]["pid"] not in (None, before), 30)
        assert after["livekit"]["up"], "it has all it needs again"
        assert await daemon.metric("reconcile_total", {"loop": "workers", "outcome": "failed"}) >= 1
        assert await daemon.metric("reconcile_total", {"loop": "scan", "outcome": "failed"}) >= 1
