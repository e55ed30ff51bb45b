"""LiveKit: reached, key valid, and set so that the promise can be kept; with the lines it lacks.

One rule: what cannot be seen from outside is not guessed; ``--probe`` makes an empty room to see more.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

import aiohttp

from supervisor.cli.diagnose_daemon import PREFIX
from supervisor.cli.diagnose_findings import Area, Finding, Notes, Situation
from supervisor.cli.diagnose_situation import is_loopback, metrics
from supervisor.cli.text import count, plain, span
from supervisor.config import Address, Settings
from supervisor.core.model import Room, Unknown
from supervisor.core.ports import Failed, RequestOutcome
from supervisor.events import EventBus
from supervisor.livekit.api import LiveKitClient
from supervisor.livekit.inspection import Inspection, ServerInfo

OLDEST = (1, 9)
"""Servers before that are likely to lack something; nothing but 1.13.5 was tested."""

CLOCK_SECONDS = 5.0
TOKEN_LEEWAY = 60.0
GRACE_MARGIN = 3.0
WEBHOOK_SECONDS = 3.0
WEBHOOK_AGE = 900.0
"""Seconds without one, while rooms are there, after which they may well have ceased."""

_WEBHOOK_PORT = 9106

LIVE_READS = """\
# livekit.yaml
api:
  enable_psrpc_for_get_list_participants: true"""


async def look(situation: Situation, *, probe: bool) -> list[Finding]:
    notes = Notes(Area.LIVEKIT)
    settings = situation.settings
    if settings is None:
        notes.unknown("LiveKit was not asked: its address is not known while the configuration has mistakes")
        return notes.findings
    if not await _is_reached(settings, notes):
        return notes.findings
    livekit = settings.livekit
    secret = livekit.api_secret.get_secret_value()
    inspection = Inspection(livekit.url, livekit.api_key, secret, livekit.timeout)
    try:
        await _tell_server(inspection, notes)
        await _tell_clock(inspection, settings, notes)
        await _tell_reads(inspection, notes)
        await _tell_rest(inspection, situation, settings, notes, probe=probe)
    finally:
        await inspection.aclose()
    return notes.findings


async def _is_reached(settings: Settings, notes: Notes) -> bool:
    livekit = settings.livekit
    secret = livekit.api_secret.get_secret_value()
    client = LiveKitClient(livekit.url, livekit.api_key, secret, livekit.timeout, EventBus())
    try:
        started = time.monotonic()
        answer = await client.ping()
        seconds = time.monotonic() - started
    finally:
        await client.aclose()
    if isinstance(answer, Failed):
        _tell_failure(settings, answer, notes)
        return False
    notes.ok(f"LiveKit at {livekit.url} answers and accepts the key", f"in {seconds * 1000:.0f} ms")
    return True


def _tell_failure(settings: Settings, failed: Failed, notes: Notes) -> None:
    livekit = settings.livekit
    if failed.outcome is RequestOutcome.UNAUTHORIZED:
        notes.error(
            "LiveKit refuses the key, so no room can be seen and no agent can register",
            plain(failed.message),
            fix=f"# livekit.yaml: the pair that livekit.api_key and livekit.api_secret name here\n"
            f"keys:\n  {livekit.api_key}: ITS_SECRET",
        )
    else:
        notes.error(
            f"LiveKit at {livekit.url} is not reached: {failed.outcome.value}",
            plain(failed.message),
            fix=f"curl -sS {livekit.url.replace('ws', 'http', 1)}   # says OK when LiveKit is there",
        )


# --- the server -----------------------------------------------------------------------------------------


async def _tell_server(inspection: Inspection, notes: Notes) -> None:
    try:
        info = await inspection.server()
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        notes.error(
            "LiveKit does not let workers register, though it answers otherwise",
            plain(f"{type(error).__name__}: {error}"),
            fix="# a proxy in front of LiveKit must pass the WebSocket /agent on, too",
        )
        return
    if info is None:
        notes.unknown("LiveKit does not tell its version")
        return
    _tell_version(info, notes)


def _tell_version(info: ServerInfo, notes: Notes) -> None:
    told = f"agent protocol {info.protocol}"
    numbers = tuple(int(n) for n in info.version.split("-")[0].split(".") if n.isdecimal())
    name = "LiveKit Cloud" if info.cloud else "livekit-server"
    if numbers and numbers < OLDEST and not info.cloud:
        notes.warning(f"{name} {plain(info.version)} is old; 1.13.5 is what this was tested with", told)
    else:
        notes.ok(f"{name} {plain(info.version)}, workers can register", told)


async def _tell_clock(inspection: Inspection, settings: Settings, notes: Notes) -> None:
    try:
        skew = await inspection.clock_skew()
    except (aiohttp.ClientError, TimeoutError, OSError):
        skew = None
    if skew is None:
        notes.unknown("LiveKit does not tell its time")
        return
    if abs(skew) <= CLOCK_SECONDS:
        notes.ok("the clocks agree", f"within {CLOCK_SECONDS:g} s")
        return
    direction = "ahead of" if skew > 0 else "behind"
    evidence = f"LiveKit's clock is {span(abs(skew))} {direction} this machine's"
    refused = abs(skew) > min(settings.http.webhook_max_age, TOKEN_LEEWAY)
    tell = notes.error if refused else notes.warning
    tell(
        "the clocks disagree: tokens or webhooks count as too old or not yet valid",
        evidence,
        fix="timedatectl set-ntp true   # on both machines",
    )


async def _tell_reads(inspection: Inspection, notes: Notes) -> None:
    live = await inspection.reads_live_memory()
    if live is None:
        notes.unknown("whether LiveKit reads participants from live memory could not be seen")
    elif live:
        notes.ok("LiveKit reads participants from live memory")
    else:
        notes.warning(
            "LiveKit reads participants from its store: 5 to 15 of 100 reads are stale just after an event",
            "it said at once that a room which does not exist has nobody in it",
            fix=LIVE_READS,
        )


# --- what only rooms and webhooks tell ------------------------------------------------------------------


async def _tell_rest(
    inspection: Inspection, situation: Situation, settings: Settings, notes: Notes, *, probe: bool
) -> None:
    if not probe:
        await _tell_departure(settings, await _rooms(settings), notes)
        tell_webhooks(situation, settings, situation.metrics, notes)
        return
    before = _received(situation.metrics)
    async with inspection.probe() as room:
        if isinstance(room, Failed):
            notes.error("LiveKit lets us make no room, so nothing could be probed", plain(room.message))
            return
        await _tell_departure(settings, [room], notes)
        if situation.metrics:
            await _tell_probed_webhooks(settings, before, notes)


async def _rooms(settings: Settings) -> list[Room]:
    livekit = settings.livekit
    secret = livekit.api_secret.get_secret_value()
    client = LiveKitClient(livekit.url, livekit.api_key, secret, livekit.timeout, EventBus())
    try:
        rooms = await client.list_rooms()
    finally:
        await client.aclose()
    return [] if isinstance(rooms, Unknown) else list(rooms)


async def _tell_departure(settings: Settings, rooms: list[Room], notes: Notes) -> None:
    grace = settings.rooms.human_return_grace
    if not rooms:
        notes.unknown(
            "no room is there to see departure_timeout on",
            "LiveKit's own default is 20 s",
            fix="livekit-supervisor diagnose --probe   # makes an empty room for a moment",
        )
        return
    shortest = min(room.departure_timeout for room in rooms)
    if grace > shortest - GRACE_MARGIN:
        notes.warning(
            "LiveKit closes a room before its human may come back: the job ends, and the grace is cut short",
            f"departure_timeout is {shortest} s, rooms.human_return_grace {grace:g} s and 3 s to spare",
            fix=f"# livekit.yaml\nroom:\n  departure_timeout: {int(grace + GRACE_MARGIN) + 2}",
        )
    else:
        notes.ok("rooms stay open long enough for a human to return", f"departure_timeout is {shortest} s")


def _received(metrics: Mapping[str, float]) -> float:
    return metrics.get(f"{PREFIX}webhook_last_received_timestamp_seconds", 0.0)


def tell_webhooks(
    situation: Situation, settings: Settings, metrics: Mapping[str, float], notes: Notes
) -> None:
    if not metrics:
        notes.unknown("whether webhooks arrive is known by the running daemon only")
        return
    _tell_refused(settings, metrics, notes)
    last = _received(metrics)
    age = max(0.0, time.time() - last)
    if last and age > WEBHOOK_AGE and _seen_rooms(situation):
        notes.warning(
            f"no webhook has arrived for {span(age)}, and rooms are there: "
            f"without webhooks everything takes up to rooms.resync ({settings.rooms.resync:g} s)",
            "it is as it should be only if nobody came or went meanwhile; diagnose --probe tells",
            fix=webhook_lines(settings),
        )
    elif last:
        notes.ok("webhooks arrive", f"the last one {span(age)} ago")
    elif _seen_rooms(situation):
        notes.warning(
            f"no webhook has arrived: everything takes up to rooms.resync ({settings.rooms.resync:g} s)",
            "the daemon has seen rooms, and was told of none",
            fix=webhook_lines(settings),
        )
    else:
        notes.unknown(
            "no webhook has arrived yet, and there was no room to send one about",
            fix="livekit-supervisor diagnose --probe   # makes an empty room for a moment",
        )


def _seen_rooms(situation: Situation) -> bool:
    return bool(situation.rooms and situation.rooms["rooms"])


def _tell_refused(settings: Settings, metrics: Mapping[str, float], notes: Notes) -> None:
    counts: dict[str, float] = {}
    for series, value in metrics.items():
        if series.startswith(f"{PREFIX}webhooks_total{{") and value:
            outcome = series.partition('outcome="')[2].partition('"')[0]
            counts[outcome] = counts.get(outcome, 0.0) + value
    unsigned = int(counts.get("unsigned", 0))
    if unsigned:
        name = settings.livekit.webhook_api_key or settings.livekit.api_key
        notes.warning(
            f"{count(unsigned, 'webhook')} refused: not signed, or with another key than {name}",
            *_as_evidence(counts),
            fix="# config.yaml: the key that LiveKit signs with, webhook.api_key in livekit.yaml\n"
            "livekit:\n  webhook_api_key: ITS_KEY\n  webhook_api_secret: ITS_SECRET",
        )
    stale = int(counts.get("stale", 0))
    if stale:
        notes.warning(
            f"{count(stale, 'webhook')} refused as too old or from the future: see the clocks",
            *_as_evidence(counts),
        )


def _as_evidence(counts: Mapping[str, float]) -> list[str]:
    return [", ".join(f"{outcome} {int(n)}" for outcome, n in sorted(counts.items()))]


async def _tell_probed_webhooks(settings: Settings, before: float, notes: Notes) -> None:
    deadline = time.monotonic() + WEBHOOK_SECONDS
    while time.monotonic() < deadline:
        now = await asyncio.to_thread(metrics, settings)
        if _received(now) > before:
            notes.ok("webhooks arrive", "one came about the room that was made to see it")
            return
        await asyncio.sleep(0.1)
    _tell_refused(settings, await asyncio.to_thread(metrics, settings), notes)
    notes.warning(
        f"no webhook arrives: everything takes up to rooms.resync ({settings.rooms.resync:g} s)",
        f"none came within {WEBHOOK_SECONDS:g} s about the room that was made to see it",
        fix=webhook_lines(settings),
    )


def webhook_lines(settings: Settings) -> str:
    """What livekit.yaml lacks; the address is the one that we listen on, or should."""
    listen, ours = settings.http.webhook_listen or settings.http.listen, ""
    if is_loopback(listen.host) and not is_loopback(urlsplit(settings.livekit.url).hostname or ""):
        listen = Address("0.0.0.0", _WEBHOOK_PORT)
        ours = (
            "# config.yaml, read at the start: LiveKit is on another host, and does not reach loopback here\n"
            f"http:\n  webhook_listen: {listen}\n"
        )
    host = "THIS_HOST" if listen.host in ("0.0.0.0", "::") else str(listen).rpartition(":")[0]
    key = settings.livekit.webhook_api_key or settings.livekit.api_key
    return (
        f"{ours}# livekit.yaml\nwebhook:\n"
        f"  api_key: {key}\n"
        f"  urls:\n    - http://{host}:{listen.port}/livekit/webhook"
    )
