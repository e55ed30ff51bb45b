"""Part *scrape*: what Prometheus waits for, and the daemon pays, with many agents; rooms add nothing."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import aiohttp

from tests.bench.figures import Column, Table, spread, summary
from tests.bench.ground import Ground, supervised
from tests.bench.second_agent import NAME
from tests.bench.standin import standin
from tests.bench.usage import cpu_seconds
from tests.livekit.supervised import Supervised

AGENTS = 100
ROOMS = 10_000
FORMATS = {"text": "text/plain", "OpenMetrics": "application/openmetrics-text; version=1.0.0"}
PATIENCE = 180


async def run(ground: Ground) -> None:
    table = Table(
        f"A scrape with {AGENTS} agents",
        (*spread("ms"), Column("processor", "ms each"), Column("size", "KiB", 0)),
        "One after the other over a connection that is kept, until the last byte is there.  The rooms, of "
        "the stand-in, hold a human and an agent, and have all been looked at.",
        "below 50 ms, and the same for no room and for ten thousand",
    )
    for rooms in (0, ROOMS):
        async with (
            standin(ground, rooms, NAME) as server,
            supervised(ground, server.as_server, _agents(), rooms={"resync": "1h"}) as subject,
        ):
            ground.progress(f"looking at {rooms:,} rooms")
            await _all_known(subject, rooms)
            for name, accept in FORMATS.items():
                table.add(f"{rooms:,} rooms, {name}", await _scrapes(subject, accept, ground.many(30, 100)))
    ground.report(table)


def _agents() -> list[dict[str, Any]]:
    """With IDs as long as real ones, since that is most of what is written."""
    sleeper = {"name": NAME, "command": ["sleep", "3600"], "rooms": []}
    return [{"id": f"agent-{n:08d}-49a8-4982-8e36-0f1146f9a66e", **sleeper} for n in range(AGENTS)]


async def _all_known(subject: Supervised, rooms: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while await subject.metric("rooms") < rooms:  # noqa: ASYNC110
            await asyncio.sleep(0.5)


async def _scrapes(subject: Supervised, accept: str, count: int) -> dict[str, Any]:
    url, took = f"http://127.0.0.1:{subject.port}/metrics", []
    async with aiohttp.ClientSession(headers={"Accept": accept}) as session:
        used = cpu_seconds(subject.pid)
        for _ in range(count):
            started = time.monotonic()
            async with session.get(url) as answer:
                size = len(await answer.read())
            took.append(time.monotonic() - started)
        used = cpu_seconds(subject.pid) - used
    assert answer.content_type == accept.partition(";")[0]
    return {**summary(took, 1000), "processor": used / count * 1000, "size": size / 1024}
