"""Rooms as LiveKit shows them, beside what the daemon says of them.

One rule: with a daemon its verdict counts, and LiveKit's lists are the evidence; without one, only what is
plain from the lists is said: no agent, or more than one.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from supervisor.cli.diagnose_findings import Area, Finding, Notes, Situation
from supervisor.cli.documents import Conflicts
from supervisor.cli.documents import Room as RoomDocument
from supervisor.cli.text import count, plain
from supervisor.config import Settings
from supervisor.core.model import ATTRIBUTE_AGENT_ID, Dispatch, Participant, Unknown
from supervisor.core.patterns import matches_any
from supervisor.events import EventBus
from supervisor.livekit.api import LiveKitClient
from supervisor.process.watch import PidfdWatch

MOST_ROOMS = 200
AT_ONCE = 16
MOST_SHOWN = 20

_RIGHT = frozenset({"healthy", "empty"})


@dataclass(frozen=True, slots=True)
class Seen:
    """One room in LiveKit's lists."""

    name: str
    participants: tuple[Participant, ...] | Unknown
    dispatches: tuple[Dispatch, ...] | Unknown

    def evidence(self) -> list[str]:
        return [f"room {plain(self.name)}", _people(self.participants), _dispatches(self.dispatches)]


@dataclass(frozen=True, slots=True)
class StoredClaim:
    room: str
    agent_id: str
    job_id: str
    identity: str
    job_pid: int
    job_create_time: float

    @property
    def alive(self) -> bool:
        return PidfdWatch().create_time(self.job_pid) == self.job_create_time


async def look(situation: Situation, *, reached: bool) -> list[Finding]:
    notes = Notes(Area.ROOMS)
    settings = situation.settings
    if settings is None or not reached:
        notes.unknown("rooms were not looked at: LiveKit cannot be asked")
        return notes.findings
    seen = await _read(settings, notes)
    if situation.rooms is not None:
        _tell_verdicts(situation.rooms["rooms"], {room.name: room for room in seen}, notes)
    else:
        for room in seen:
            _tell_plain(room, settings, notes)
        _tell_ghosts(seen, stored_claims(settings.paths.state / "supervisor.db", notes), notes)
    if situation.conflicts is not None:
        tell_conflicts(situation.conflicts, notes)
    if not notes.findings:
        notes.ok(f"{count(len(seen), 'room')}, none of which needs anything")
    return notes.findings


async def _read(settings: Settings, notes: Notes) -> list[Seen]:
    livekit = settings.livekit
    secret = livekit.api_secret.get_secret_value()
    client = LiveKitClient(livekit.url, livekit.api_key, secret, livekit.timeout, EventBus())
    gate = asyncio.Semaphore(AT_ONCE)

    async def read(name: str) -> Seen:
        async with gate:
            participants, dispatches = await asyncio.gather(
                client.list_participants(name), client.list_dispatches(name)
            )
        return Seen(name, participants, dispatches)

    try:
        rooms = await client.list_rooms()
        if isinstance(rooms, Unknown):
            notes.unknown("LiveKit's rooms could not be listed", plain(rooms.reason))
            return []
        names = [room.name for room in rooms if not matches_any(room.name, settings.rooms.ignore)]
        if len(names) > MOST_ROOMS:
            notes.unknown(f"only {MOST_ROOMS} of {len(names)} rooms were looked at")
        return list(await asyncio.gather(*map(read, names[:MOST_ROOMS])))
    finally:
        await client.aclose()


# --- with a daemon --------------------------------------------------------------------------------------


def _tell_verdicts(rooms: Iterable[RoomDocument], seen: Mapping[str, Seen], notes: Notes) -> None:
    wrong = [room for room in rooms if room["state"] not in _RIGHT]
    for room in wrong[:MOST_SHOWN]:
        found = seen.get(room["name"])
        evidence = found.evidence() if found is not None else [f"room {plain(room['name'])}"]
        evidence.append(_claim(room))
        tell = notes.unknown if room["state"] == "unknown" else notes.error
        what = room["state"].replace("_", " ")
        tell(
            f"{what}: {plain(room['reason'] or 'no reason told')}", *evidence, fix="livekit-supervisor rooms"
        )
    if len(wrong) > MOST_SHOWN:
        notes.error(f"and {len(wrong) - MOST_SHOWN} more rooms", fix="livekit-supervisor rooms")


def _claim(room: RoomDocument) -> str:
    claim = room["claim"]
    if claim is None:
        return "claim: none"
    return f"claim: job {plain(claim['job_id'])} of {plain(claim['agent_id'])}, epoch {claim['epoch']}"


def tell_conflicts(document: Conflicts, notes: Notes) -> None:
    """Of the last hour: history, none of which is wrong now for that."""
    failed = [c for c in document["conflicts"] if c["resolution"] == "failed"]
    if failed:
        evidence = [f"{c['time']} {plain(c['kind'])}" for c in failed[:MOST_SHOWN]]
        notes.warning(
            f"{count(len(failed), 'conflict')} could not be resolved in the last hour",
            *evidence,
            fix="livekit-supervisor conflicts --since 1h",
        )
    kinds = sorted({c["kind"] for c in document["conflicts"]})
    if kinds:
        totals = ", ".join(
            f"{plain(kind)} {sum(c['kind'] == kind for c in document['conflicts'])}" for kind in kinds
        )
        notes.ok(f"{count(len(document['conflicts']), 'conflict')} in the last hour", totals)


# --- without --------------------------------------------------------------------------------------------


def _tell_plain(room: Seen, settings: Settings, notes: Notes) -> None:
    if isinstance(room.participants, Unknown):
        notes.unknown("a room could not be read", *room.evidence())
        return
    humans = [p for p in room.participants if p.is_human]
    agents = [p for p in room.participants if p.is_agent and not _ignored(p, settings)]
    if humans and not agents and _is_ours(room, settings):
        notes.error(
            "a human waits without an agent",
            *room.evidence(),
            fix="livekit-supervisor run   # puts it right by itself",
        )
    if len(agents) > 1:
        notes.error(
            f"{len(agents)} agents are in one room",
            *room.evidence(),
            fix="livekit-supervisor run   # puts it right by itself",
        )


def _ignored(participant: Participant, settings: Settings) -> bool:
    patterns = settings.rooms.ignore_agents
    return matches_any(participant.identity, patterns) or participant.agent_name in patterns


def _is_ours(room: Seen, settings: Settings) -> bool:
    names = {agent.name for agent in settings.agents}
    dispatched = () if isinstance(room.dispatches, Unknown) else room.dispatches
    return any(d.agent_name in names for d in dispatched) or any(
        matches_any(room.name, agent.rooms or ()) for agent in settings.agents
    )


def _tell_ghosts(seen: Iterable[Seen], claims: Iterable[StoredClaim], notes: Notes) -> None:
    dead = {(c.room, c.identity): c for c in claims if c.job_pid and not c.alive}
    for room in seen:
        listed = () if isinstance(room.participants, Unknown) else room.participants
        for participant in listed:
            claim = dead.get((room.name, participant.identity))
            if claim is not None:
                notes.error(
                    "a ghost: the agent is listed, its process is dead",
                    f"process {claim.job_pid} of {plain(claim.agent_id)}",
                    *room.evidence(),
                    fix="livekit-supervisor run   # removes it and dispatches again",
                )


def stored_claims(database: Path, notes: Notes) -> list[StoredClaim]:
    """As the last daemon left them.  Looking makes no file."""
    try:
        if not database.is_file():
            return []
    except OSError as error:
        notes.unknown("whether an agent is a ghost could not be seen", f"{database}: {error.strerror}")
        return []
    for mode in ("mode=ro", "immutable=1"):  # the latter where the last daemon has tidied up
        try:
            return _read_claims(f"{database.absolute().as_uri()}?{mode}")
        except sqlite3.Error as error:
            why = str(error)
    notes.unknown("whether an agent is a ghost could not be seen", f"{database}: {why}")
    return []


def _read_claims(uri: str) -> list[StoredClaim]:
    connection = sqlite3.connect(uri, uri=True, timeout=1)
    try:
        columns = "room, agent_id, job_id, identity, job_pid, job_create_time"
        return [StoredClaim(*row) for row in connection.execute(f"SELECT {columns} FROM claims")]
    finally:
        connection.close()


# --- evidence -------------------------------------------------------------------------------------------


def _people(participants: tuple[Participant, ...] | Unknown) -> str:
    if isinstance(participants, Unknown):
        return f"participants: unknown ({plain(participants.reason)})"
    told = [_person(p) for p in participants[:MOST_SHOWN]]
    return f"participants: {', '.join(told) or 'none'}"


def _person(participant: Participant) -> str:
    about = participant.attributes.get(ATTRIBUTE_AGENT_ID) or participant.agent_name
    kind = participant.kind.value + (f" {plain(about)}" if about else "")
    return f"{plain(participant.identity)} ({kind})"


def _dispatches(dispatches: tuple[Dispatch, ...] | Unknown) -> str:
    if isinstance(dispatches, Unknown):
        return f"dispatches: unknown ({plain(dispatches.reason)})"
    told = [
        f"{plain(d.agent_name or '(unnamed)')} with {count(len(d.job_ids), 'job')}"
        for d in dispatches[:MOST_SHOWN]
    ]
    return f"dispatches: {', '.join(told) or 'none'}"
