"""Part *claims*: how many job requests the daemon decides, how quickly, and what a job pays for it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.bench import job_start
from tests.bench.claims_load import Wave
from tests.bench.figures import Column, Table, Value, median, percentile
from tests.bench.ground import Ground, livekit, module, program, result, short_folder, supervised, until
from tests.livekit.server import LiveKitServer
from tests.livekit.supervised import ROOT

CONNECTIONS = 50
AIM = 5_000


async def run(ground: Ground) -> None:
    await _requests(ground)
    await job_start.run(ground)


def _waves(ground: Ground) -> list[Wave]:
    seconds = float(ground.many(3, 8))
    return [
        Wave("new rooms, as fast as answers come", seconds),
        Wave("held rooms, as fast as answers come", seconds, rooms=1_000),
        Wave(f"new rooms, {AIM:,} a second", seconds, rate=AIM),
        Wave("new rooms, 1,000 a second", seconds, rate=1_000),
    ]


async def _requests(ground: Ground) -> None:
    table = Table(
        f"Job requests over the guard socket, {CONNECTIONS} connections",
        (
            Column("answers", "per s", 0),
            Column("p50", "ms", 2),
            Column("p99", "ms", 2),
            Column("most", "ms", 1),
            Column("processor", "µs each", 0),
            Column("share of the limit", "%", 0),
        ),
        "A worker's process asks for rooms over its connections; the daemon checks, decides, keeps, counts "
        "and logs each.  At a set rate a delay counts from when the request was due.  The limit is the "
        "same client over a socket that gives each line back unread.",
        "5,000 a second, p99 below 5 ms",
    )
    async with livekit(ground) as server:
        for wave in _waves(ground):
            ground.progress(f"{wave.name}: the daemon, then a bare echo")
            mine = await _over_daemon(ground, server, wave)
            limit = await _over_echo(ground, wave)
            share = None if wave.rate else _rate(mine) / _rate(limit) * 100
            table.add(wave.name, {**_row(mine), "share of the limit": share})
            table.add("… limit", _row(limit))
    ground.report(table)


def _rate(outcome: dict[str, Any]) -> float:
    return len(outcome["latencies"]) / float(outcome["seconds"])


def _row(outcome: dict[str, Any]) -> dict[str, Value]:
    milliseconds = [seconds * 1000 for seconds in outcome["latencies"]]
    return {
        "answers": _rate(outcome),
        "processor": float(outcome["cpu_seconds"]) / len(milliseconds) * 1e6,
        "p50": median(milliseconds),
        "p99": percentile(milliseconds, 0.99),
        "most": max(milliseconds),
    }


def _command(socket: Path, outcome: Path, wave: Wave) -> list[str]:
    """A second of warming up goes before: what is done only once is not what is asked for."""
    told = json.dumps([asdict(Wave("warm up", 1.0)), asdict(wave)])
    return module("claims_load", str(socket), "load", str(outcome), str(CONNECTIONS), told)


async def _over_echo(ground: Ground, wave: Wave) -> dict[str, Any]:
    folder = ground.subfolder("echo")
    with short_folder() as runtime:
        socket, outcome = runtime / "echo.sock", folder / "outcome.json"
        with program(module("echo", str(socket)), folder / "echo.log"):
            await until(socket.exists, "the echo listens")
            with program(_command(socket, outcome, wave), folder / "load.log"):
                return await _outcome(outcome)


async def _over_daemon(ground: Ground, server: LiveKitServer, wave: Wave) -> dict[str, Any]:
    """Rooms are ignored: what a look at a room costs is measured in part *rooms*.

    A daemon for each wave: a granted room whose job never comes is given up after 15 s, which no wave
    lasts, and would be work of another kind.
    """
    folder = ground.subfolder("load")
    outcome = folder / "outcome.json"
    with short_folder() as runtime:
        agent = {
            "id": "load",
            "command": _command(runtime / "guard.sock", outcome, wave),
            "cwd": str(ROOT),
            "rooms": [],
            "stop": {"drain": "0s", "kill": "2s"},
        }
        async with supervised(ground, server, [agent], runtime=runtime, rooms={"ignore": ["bench-*"]}):
            return await _outcome(outcome)


async def _outcome(path: Path) -> dict[str, Any]:
    outcomes = await result(path)
    assert isinstance(outcomes, list), outcomes
    return dict(outcomes[-1])
