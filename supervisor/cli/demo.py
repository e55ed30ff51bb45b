"""``demo``: a call is disturbed in four ways, and a human in it tells how it healed.

One rule: what counts is what the human heard, measured from the instant of the disturbance.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path

from supervisor.cli.client import Client
from supervisor.cli.demo_setup import development_setup, wait_for_agent
from supervisor.cli.demo_view import TICK, Result, Timeline
from supervisor.cli.disturbances import Disturbance, Mischief
from supervisor.cli.documents import VERSION, Agent
from supervisor.cli.errors import CliError, ExitCode
from supervisor.cli.hearing import Hearing
from supervisor.cli.human import Access, Human, JoinFailed, What
from supervisor.cli.rtc_connection import RtcMissing, require_rtc
from supervisor.cli.screen import print_json
from supervisor.cli.settings import load_settings
from supervisor.cli.text import plain

FIRST_SOUND = 30.0
HEALING = 45.0
"""Seconds after which a call counts as not healed."""

INTERRUPTION = 0.4
"""Seconds of silence that are more than a pause between words; those last a tenth of a second here."""

_CUTS = frozenset({What.LEFT, What.RECONNECTING, What.LOST, What.AGENT_WENT})

STEADY = 5.0
"""Seconds for which one agent must be heard, and nobody else there, to count as healed."""


def run_demo(config_file: Path, agent: str | None, *, as_json: bool) -> int:
    try:
        require_rtc()
    except RtcMissing as error:
        raise CliError(str(error), ExitCode.USAGE) from error
    logging.getLogger("livekit").setLevel(logging.CRITICAL)  # its reconnecting is part of the show
    settings = load_settings(config_file, os.environ)
    secret = settings.livekit.api_secret.get_secret_value()
    access = Access(settings.livekit.url, settings.livekit.api_key, secret)
    client = Client(settings.paths.runtime / "control.sock", config_file)
    with Timeline(to_stderr=as_json) as timeline, development_setup(client, config_file, timeline.tell):
        found = wait_for_agent(client, agent, timeline.tell)
        _require_same_livekit(client, access)
        room, results, one_audible = asyncio.run(_show(client, found, access, timeline))
        timeline.stop()
    timeline.summary(results, one_audible=one_audible)
    if as_json:
        print_json(
            {
                "version": VERSION,
                "agent_id": found["id"],
                "room": room,
                "disturbances": [r.document() for r in results],
                "one_audible_agent_at_the_end": one_audible,
            }
        )
    return ExitCode.FINE if one_audible else ExitCode.WRONG


def _require_same_livekit(client: Client, access: Access) -> None:
    url = client.status()["livekit"]["url"]
    if url.rstrip("/") != access.url.rstrip("/"):
        raise CliError(
            f"the running daemon uses LiveKit at {plain(url)}, this configuration another at {access.url}",
            ExitCode.USAGE,
        )


async def _show(
    client: Client, agent: Agent, access: Access, timeline: Timeline
) -> tuple[str, list[Result], bool]:
    room = f"demo-{secrets.token_hex(3)}"
    dispatch = (agent["name"],) if agent["name"] else ()
    human = Human(access, room, dispatch=dispatch, on_happening=timeline.happened)
    mischief = Mischief(client, agent, access, human)
    timeline.announce(f"a human joins room {room} and speaks; {plain(agent['name'] or agent['id'])} answers")
    async with _call(human, mischief, timeline):
        if await human.wait_audible(FIRST_SOUND) is None:
            raise CliError(f"no agent was heard within {FIRST_SOUND:g} s of joining", ExitCode.WRONG)
        await human.wait_settled(HEALING, steady=STEADY)
        results = [await _disturb(human, disturbance, timeline) for disturbance in mischief.all()]
        return room, results, human.exactly_one_audible()


@contextlib.asynccontextmanager
async def _call(human: Human, mischief: Mischief, timeline: Timeline) -> AsyncIterator[None]:
    """The human is in the room and speaks; afterwards the room is gone."""
    try:
        await human.join()
    except JoinFailed as error:
        raise CliError(str(error), ExitCode.WRONG) from error
    human.talk()
    timeline.watch(human)
    ticking = asyncio.create_task(_tick(timeline))
    try:
        yield
    finally:
        ticking.cancel()
        await asyncio.wait([ticking])
        await human.leave()
        await mischief.clean_up()


async def _tick(timeline: Timeline) -> None:
    while True:
        timeline.tick()
        await asyncio.sleep(TICK)


async def _disturb(human: Human, disturbance: Disturbance, timeline: Timeline) -> Result:
    timeline.announce(disturbance.announcement)
    before = time.monotonic()
    start = await disturbance.make()
    healed = await human.wait_settled(HEALING, steady=STEADY)
    cut = any(h.at >= before and h.what in _CUTS for h in human.history)
    result = Result(
        disturbance.name,
        disturbance.key,
        human.agents.most_present(before),
        human.agents.most_audible(before),
        human.agents.two_at_once(before),
        audible_again(human.agents, before, start, cut=cut),
        healed,
    )
    timeline.tell("healed" if healed else f"not healed within {HEALING:g} s")
    return result


def audible_again(hearing: Hearing, before: float, start: float, *, cut: bool) -> float | None:
    """From ``start`` until the longest silence since ``before`` was over; 0 when there were only pauses.

    ``cut``: the connection or the agent was gone for a while, so that no silence is a mere pause.
    """
    silence = hearing.longest_silence(before)
    if silence is None or (silence.seconds <= INTERRUPTION and not cut):
        return 0.0
    if hearing.first_heard(silence.end - 0.001) is None:
        return None
    return max(0.0, silence.end - start)
