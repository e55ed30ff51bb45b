"""A look at ten thousand rooms: how quick beside the same client that only reads, and what they weigh."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from livekit import api

from tests.bench.fake_livekit import NAME as ROOM_NAME
from tests.bench.figures import Column, Table, Value, median
from tests.bench.ground import Ground, livekit, module, result, supervised
from tests.bench.second_agent import NAME, SLEEPER
from tests.bench.standin import standin
from tests.bench.usage import cpu_seconds, memory
from tests.livekit.server import LiveKitServer
from tests.livekit.supervised import ROOT, Supervised

ROOMS = 10_000
CREATING = 32


@dataclass(frozen=True, slots=True)
class Pace:
    looks: float
    reads: float
    """Both a second."""
    cpu: float
    """Seconds of processor time for each look."""


async def run(ground: Ground) -> None:
    table = Table(
        f"Looking at {ROOMS:,} rooms again and again",
        (
            Column("rooms", "per s", 0),
            Column("reads", "per s", 0),
            Column("processor", "µs per room", 0),
            Column("share, rooms", "%", 0),
            Column("share, reads", "%", 0),
            Column("PSS for the rooms", "MiB"),
        ),
        "The resync is due more often than it can be done, so the loop is never idle.  A look at a quiet "
        "room is one read, its participants, and every eighth reads its dispatches too.  The limit is the "
        "same client in a program of its own, reading participants in a loop with as many requests at a "
        "time.  The rooms of the real server are empty but for LiveKit's own dispatch; those of the stand-in "
        "hold a human and an agent.",
        "over 80 % of the limit",
    )
    async with livekit(ground) as server:
        ground.progress(f"creating {ROOMS:,} rooms on the real server")
        await _create_rooms(server)
        await _measure(ground, table, "livekit-server", server)
    async with standin(ground, ROOMS, NAME) as stand:
        await _measure(ground, table, "stand-in", stand.as_server)
    ground.report(table)


async def _create_rooms(server: LiveKitServer) -> None:
    names = iter([ROOM_NAME.format(number) for number in range(ROOMS)])
    async with api.LiveKitAPI(server.http_url, server.key, server.secret) as client:

        async def create() -> None:
            for name in names:
                await client.room.create_room(api.CreateRoomRequest(name=name, empty_timeout=7200))

        await asyncio.gather(*(create() for _ in range(CREATING)))


async def _measure(ground: Ground, table: Table, where: str, server: LiveKitServer) -> None:
    """The limit is measured before and after: the machine may be busier at one time than at another."""
    seconds = float(ground.many(5, 15))
    raw = [await _raw(ground, server, seconds)]
    async with _looking(ground, server) as subject:
        ground.progress(f"looking at the rooms of {where}")
        before = memory(subject.pid).pss
        await _rooms_known(subject)
        pace = await _pace(subject, seconds)
        grown = memory(subject.pid).pss - before
    raw.append(await _raw(ground, server, seconds))
    rate, cpu = median([pair[0] for pair in raw]), median([pair[1] for pair in raw])
    row: dict[str, Value] = {
        "rooms": pace.looks,
        "reads": pace.reads,
        "processor": pace.cpu * 1e6,
        "share, rooms": pace.looks / rate * 100,
        "share, reads": pace.reads / rate * 100,
        "PSS for the rooms": grown,
    }
    table.add(where, row)
    table.add("… limit", {"rooms": rate, "reads": rate, "processor": cpu * 1e6})


async def _raw(ground: Ground, server: LiveKitServer, seconds: float) -> tuple[float, float]:
    """Reads a second, and processor time for each."""
    ground.progress("the same client in a loop")
    folder = ground.subfolder("raw")
    command = module(
        "raw_reads", server.url, server.key, server.secret, str(seconds), str(folder / "rate.json")
    )
    with (folder / "raw.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=ROOT, stdin=subprocess.PIPE, stdout=log, stderr=log
        )
        await process.communicate("\n".join(ROOM_NAME.format(n) for n in range(ROOMS)).encode())
    rate, cpu = await result(folder / "rate.json", 1.0)
    return float(rate), float(cpu)


@contextlib.asynccontextmanager
async def _looking(ground: Ground, server: LiveKitServer) -> AsyncIterator[Supervised]:
    """Memory is to be measured from the start on: so it is not waited for."""
    async with supervised(ground, server, [SLEEPER], wait=False, rooms={"resync": "2s"}) as subject:
        await subject.until(lambda _: True, 30)
        yield subject


async def _rooms_known(subject: Supervised) -> None:
    """Every room has been looked at once."""
    async with asyncio.timeout(120):
        while await subject.metric("reconcile_total", _LOOKS) < ROOMS:  # noqa: ASYNC110
            await asyncio.sleep(0.5)


async def _pace(subject: Supervised, seconds: float) -> Pace:
    async def count() -> tuple[float, float, float, float]:
        looks = await subject.metric("reconcile_total", _LOOKS)
        reads = sum([await subject.metric("livekit_requests_total", {"method": m}) for m in _READS])
        return looks, reads, cpu_seconds(subject.pid), time.monotonic()

    first = await count()
    await asyncio.sleep(seconds)
    last = await count()
    looks, reads, cpu, took = (b - a for a, b in zip(first, last, strict=True))
    return Pace(looks / took, reads / took, cpu / looks)


_LOOKS = {"loop": "rooms", "outcome": "ok"}
_READS = ("list_participants", "list_dispatches")
