"""What the guard costs a job: the same agent with and without it, dispatched in turn on one server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

from livekit import api

from tests.bench.figures import Column, Table, median, spread, summary
from tests.bench.ground import Ground, livekit, program, supervised
from tests.bench.witness import Witness
from tests.livekit.server import LiveKitServer
from tests.livekit.supervised import ROOT

SCRIPT = Path(__file__).parent / "agents" / "joiner.py"
GUARDED, BARE = "guarded", "bare"
PAUSE = 3.0
"""Seconds between two jobs: the worker makes another idle process meanwhile."""


async def run(ground: Ground) -> None:
    trials = ground.many(6, 40)
    ground.progress(f"{trials} jobs with the guard and as many without it")
    witness = Witness()
    seconds: dict[str, list[float]] = {GUARDED: [], BARE: []}
    async with (
        witness.listening(),
        livekit(ground, webhook_urls=[witness.url]) as server,
        supervised(ground, server, [_agent()]),
        _bare_worker(ground, server),
        api.LiveKitAPI(server.http_url, server.key, server.secret) as client,
    ):
        for number in range(-1, trials):
            for name in (GUARDED, BARE) if number % 2 else (BARE, GUARDED):
                took = await _job(client, witness, name, number)
                if number >= 0:
                    seconds[name].append(took)
    table = Table(
        "From a dispatch to its agent in the room",
        (*spread("ms"), Column("more than without", "ms")),
        "CreateDispatch is called, until LiveKit tells a witness of participant_joined; an idle process "
        "is waiting.  With and without the guard in turn.",
        "below 10 ms more",
    )
    differences = [a - b for a, b in zip(seconds[GUARDED], seconds[BARE], strict=True)]
    row = {**summary(seconds[GUARDED], 1000), "more than without": median(differences) * 1000}
    table.add("guarded", row)
    table.add("without the guard", summary(seconds[BARE], 1000))
    ground.report(table)


def _agent() -> dict[str, object]:
    return {
        "id": GUARDED,
        "name": GUARDED,
        "script": str(SCRIPT),
        "cwd": str(ROOT),
        "rooms": [],
        "stop": {"drain": "0s", "kill": "3s"},
    }


@contextlib.asynccontextmanager
async def _bare_worker(ground: Ground, server: LiveKitServer) -> AsyncIterator[None]:
    environment = {
        **os.environ,
        "LIVEKIT_URL": server.url,
        "LIVEKIT_API_KEY": server.key,
        "LIVEKIT_API_SECRET": server.secret,
        "BENCH_AGENT_NAME": BARE,
        "PYTHONUNBUFFERED": "1",
    }
    # A copy: a worker of the very script that is supervised would be taken for a rogue, and ended.
    copy = shutil.copy(SCRIPT, ground.subfolder("bare") / "bare_joiner.py")
    command = [sys.executable, "-m", "livekit.agents", "start", str(copy)]
    log = ground.folder / "bare-worker.log"
    with program(command, log, environment):
        async with asyncio.timeout(60):
            while b"registered worker" not in await asyncio.to_thread(log.read_bytes):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        yield


async def _job(client: api.LiveKitAPI, witness: Witness, name: str, number: int) -> float:
    """The room is there before, so that making it does not count."""
    room = f"{name}-{number}"
    await client.room.create_room(api.CreateRoomRequest(name=room))
    await asyncio.sleep(PAUSE)
    started = time.monotonic()
    await client.agent_dispatch.create_dispatch(api.CreateAgentDispatchRequest(agent_name=name, room=room))
    joined = await witness.first_in(room, "participant_joined", 30)
    await client.room.delete_room(api.DeleteRoomRequest(room=room))
    return joined - started
