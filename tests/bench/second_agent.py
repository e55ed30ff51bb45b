"""A second agent that no guard could refuse joins a room: how long it stays, and what is heard of it."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator

from supervisor.cli.human import Human
from tests.bench.figures import Column, Table, Value, spread, summary
from tests.bench.ground import Ground, livekit, supervised
from tests.bench.guests import Guests, guests
from tests.bench.witness import Witness
from tests.livekit.server import LiveKitServer
from tests.livekit.supervised import Supervised, voice
from tests.ports import free_port

NAME = "Agent_66"
ROOM = "call"
ATTRIBUTES = {"lk.agent_name": NAME}
RESYNC = 3.0
SLEEPER = {
    "id": "agent-66",
    "name": NAME,
    "command": ["sleep", "100000"],
    "rooms": ["*"],
    "stop": {"drain": "0s", "kill": "2s"},
}
"""Nobody in its rooms is guarded, and nobody in them tells the daemon anything."""


async def run(ground: Ground) -> None:
    table = Table(
        "A second, unguarded agent joins",
        (*spread("ms"), Column("published"), Column("heard of it", "frames")),
        "From its participant_joined to its participant_left, both as LiveKit's webhooks tell a witness "
        "beside the daemon.  It publishes a loud track as soon as it is connected; a human in the room "
        "listens, and counts its frames of 20 ms.",
        "p99 below 50 ms, no frame heard",
    )
    table.add("with webhooks", await _with_guard(ground, ground.many(20, 200), webhooks=True))
    table.add("no webhooks, told by the guard", await _with_guard(ground, ground.many(5, 50), webhooks=False))
    bare = await _without_guard(ground, ground.many(5, 30))
    table.add(f"neither, resync every {RESYNC:g} s", bare)
    ground.report(table)


@contextlib.asynccontextmanager
async def _stage(ground: Ground, *, webhooks: bool) -> AsyncIterator[tuple[LiveKitServer, Witness, int]]:
    witness, port = Witness(), free_port()
    hook = f"http://127.0.0.1:{port}/livekit/webhook"
    urls = (hook, witness.url) if webhooks else (witness.url,)
    async with witness.listening(), livekit(ground, webhook_urls=urls) as server:
        yield server, witness, port


async def _with_guard(ground: Ground, trials: int, *, webhooks: bool) -> dict[str, Value]:
    """The agent that belongs there is ours, guarded, and speaks to a human."""
    ground.progress(f"{trials} times a second agent, webhooks: {webhooks}")
    async with (
        _stage(ground, webhooks=webhooks) as (server, witness, port),
        supervised(ground, server, [voice()], port=port, rooms={"resync": "15s"}) as subject,
        guests(server, ground.folder / "guests.log") as others,
        subject.human(ROOM) as human,
    ):
        human.talk()
        assert await human.wait_settled(30), subject.tail(20)
        await others.stay("elsewhere", "warm-up")  # the first connection of a process takes longer
        return await _disturb(subject, others, witness, human, trials)


async def _disturb(
    subject: Supervised, others: Guests, witness: Witness, human: Human, trials: int
) -> dict[str, Value]:
    mine = human.agents.present()
    stays, published, since = [], 0, asyncio.get_running_loop().time()
    for number in range(trials):
        identity = f"second-{number}"
        visit = await others.visit(ROOM, identity, agent=True, attributes=ATTRIBUTES)
        stays.append(await witness.stay_of(identity, 30))
        published += visit["published"]
    heard = sum(s.seconds for s in human.agents.utterances(since) if s.who.startswith("second-"))
    assert await human.wait_settled(10), subject.tail(20)
    assert human.agents.present() == mine, "the wrong agent was removed"
    return {**summary(stays, 1000), "published": published, "heard of it": round(heard / 0.02)}


async def _without_guard(ground: Ground, trials: int) -> dict[str, Value]:
    """All three in the room are raw participants: only the resync can find the second agent."""
    ground.progress(f"{trials} times a second agent, found by resync alone")
    rooms = {"resync": f"{RESYNC}s"}
    async with (
        _stage(ground, webhooks=False) as (server, witness, port),
        guests(server, ground.folder / "guests.log") as others,
    ):
        await others.stay(ROOM, "caller")
        await others.stay(ROOM, "first", agent=True, attributes=ATTRIBUTES)
        async with (
            supervised(ground, server, [SLEEPER], port=port, rooms=rooms) as subject,
            subject.human(ROOM) as human,
        ):
            assert await human.wait_settled(30), subject.tail(20)
            stays, published, since = [], 0, asyncio.get_running_loop().time()
            for number in range(trials):
                await asyncio.sleep(random.uniform(0, RESYNC))
                identity = f"second-{number}"
                visit = await others.visit(ROOM, identity, agent=True, attributes=ATTRIBUTES)
                stays.append(await witness.stay_of(identity, 30))
                published += visit["published"]
            heard = sum(s.seconds for s in human.agents.utterances(since) if s.who.startswith("second-"))
    return {**summary(stays, 1000), "published": published, "heard of it": round(heard / 0.02)}
