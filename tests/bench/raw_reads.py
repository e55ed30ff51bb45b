"""The client of the daemon, calling ``ListParticipants`` in a loop: what a resync could do at most.

Usage: raw_reads URL KEY SECRET SECONDS RESULT, with the names of the rooms on standard input.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from pathlib import Path

from supervisor.core.model import Unknown
from supervisor.events import EventBus
from supervisor.livekit.api import LiveKitClient
from supervisor.reconcile.rooms import CONCURRENCY
from tests.bench.ground import write_result


async def main(url: str, key: str, secret: str, seconds: float, outcome: Path, rooms: list[str]) -> None:
    client = LiveKitClient(url, key, secret, 5.0, EventBus())
    names = itertools.cycle(rooms)
    calls = 0

    async def ask(until: float) -> None:
        nonlocal calls
        while time.monotonic() < until:
            answer = await client.list_participants(next(names))
            assert not isinstance(answer, Unknown), answer
            calls += 1

    async def measure(length: float) -> tuple[float, float]:
        """Calls a second, and processor time for each."""
        nonlocal calls
        calls, used, started = 0, time.process_time(), time.monotonic()
        await asyncio.gather(*(ask(started + length) for _ in range(CONCURRENCY)))
        return calls / (time.monotonic() - started), (time.process_time() - used) / calls

    try:
        await measure(1.0)
        write_result(outcome, await measure(seconds))
    finally:
        await client.aclose()


if __name__ == "__main__":
    given = sys.stdin.read().split()
    address, name, password, duration, path = sys.argv[1:]
    asyncio.run(main(address, name, password, float(duration), Path(path), given))
