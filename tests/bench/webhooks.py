"""A thousand webhooks a second: how soon each is answered, looked into, and acted on; none may be lost."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import defaultdict
from typing import Any

from tests.bench.figures import Column, Table, spread, summary
from tests.bench.ground import Ground, module, program, result, supervised
from tests.bench.second_agent import NAME, SLEEPER
from tests.bench.standin import StandIn, standin
from tests.bench.usage import cpu_seconds
from tests.livekit.supervised import Supervised

RATE = 1_000
ROOMS = 1_000
NEW_EVERY = 200


async def run(ground: Ground) -> None:
    seconds = ground.many(5, 30)
    table = Table(
        f"{RATE:,} webhooks a second for {seconds} s",
        (*spread("ms"), Column("lost"), Column("processor", "% of a core", 0)),
        f"About {ROOMS:,} rooms by chance, each with a human and an agent, and every {NEW_EVERY}th about a "
        "new room with a human alone.  Looked into: LiveKit, here the stand-in, has read the room's "
        "participants to us since the webhook.  Acted on: the new room's agent has been dispatched (without "
        "a grace).  All from the moment when the webhook was due.",
        "none lost",
    )
    rooms = {"resync": "1h", "missing_grace": "0s"}
    async with (
        standin(ground, ROOMS, NAME) as server,
        supervised(ground, server.as_server, [SLEEPER], rooms=rooms) as subject,
    ):
        ground.progress(f"{RATE * seconds:,} webhooks")
        await _quiet(subject)
        await server.notes()
        before = await _accepted(subject), cpu_seconds(subject.pid)
        sent = await _send(ground, server, subject, seconds)
        used = cpu_seconds(subject.pid) - before[1]
        await _quiet(subject)
        _tell(table, sent, await server.notes(), used / seconds * 100)
        accepted = await _accepted(subject) - before[0]
        assert accepted == len(sent) == RATE * seconds, f"{accepted} accepted of {len(sent)}"
    ground.report(table)


async def _accepted(subject: Supervised) -> float:
    return await subject.metric("webhooks_total", {"outcome": "accepted"})


async def _send(ground: Ground, server: StandIn, subject: Supervised, seconds: int) -> list[Any]:
    outcome = ground.subfolder("webhooks") / "sent.json"
    numbers = [str(number) for number in (RATE, seconds, ROOMS, NEW_EVERY)]
    command = module("webhook_load", str(subject.port), server.key, server.secret, *numbers, str(outcome))
    with program(command, ground.folder / "webhooks.log"):
        return list(await result(outcome, 60 + 2 * seconds))


async def _quiet(subject: Supervised) -> None:
    """Until no room has been looked at for a while."""
    before = -1.0
    async with asyncio.timeout(120):
        while (now := await subject.metric("reconcile_total", {"loop": "rooms"})) != before:
            before = now
            await asyncio.sleep(1.0)


def _tell(table: Table, sent: list[Any], notes: dict[str, list[tuple[str, float]]], cpu: float) -> None:
    looked: defaultdict[str, list[float]] = defaultdict(list)
    for room, at in notes["looked"]:
        looked[room].append(at)
    dispatched = dict(notes["dispatched"])
    answers, looks, acts = [], [], []
    refused = lost = unmet = 0
    for room, due, answered, status in sent:
        answers.append(answered - due)
        refused += status != 200
        times = looked[room]
        place = bisect_left(times, due)
        if place < len(times):
            looks.append(times[place] - due)
        else:
            lost += 1
        if room.startswith("new-"):
            if room in dispatched:
                acts.append(dispatched[room] - due)
            else:
                unmet += 1
    table.add("answered", {**summary(answers, 1000), "lost": refused, "processor": cpu})
    table.add("looked into", {**summary(looks, 1000), "lost": lost})
    table.add("acted on", {**summary(acts, 1000), "lost": unmet})
