"""``rooms`` and ``conflicts``: every room with its reason, and what was put right when.

One rule: what needs a look comes first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from supervisor.cli.documents import Conflict, Conflicts, Room, Rooms
from supervisor.cli.references import short_ids
from supervisor.cli.screen import BAD, QUIET, STATE_STYLES, table
from supervisor.cli.text import local_time, plain, short_seconds

if TYPE_CHECKING:
    from rich.console import RenderableType

_FINE = frozenset({"healthy", "empty"})
_ORDER = ("conflict", "missing_agent", "unknown", "healthy", "empty")


def is_wrong(document: Rooms) -> bool:
    return any(room["state"] not in _FINE for room in document["rooms"])


def render_rooms(document: Rooms) -> RenderableType:
    from rich.text import Text

    rooms = sorted(document["rooms"], key=_urgency)
    if not rooms:
        return Text("No rooms of ours.", QUIET)
    short = short_ids(_agent_ids(rooms))
    listing = table()
    listing.add_column("ROOM", no_wrap=True, overflow="ellipsis", max_width=24)
    listing.add_column("STATE", no_wrap=True)
    listing.add_column("HUMANS", justify="right", no_wrap=True)
    listing.add_column("AGENTS", overflow="fold", max_width=20)
    listing.add_column("REASON", overflow="fold")
    for room in rooms:
        listing.add_row(
            Text(plain(room["name"])),
            Text(plain(room["state"]), STATE_STYLES.get(room["state"], "")),
            str(room["humans"]),
            Text("\n".join(_agents_of(room, short)) or "-"),
            Text(plain(room["reason"] or ""), QUIET),
        )
    return listing


def render_conflicts(document: Conflicts) -> RenderableType:
    from rich.text import Text

    conflicts = document["conflicts"]
    if not conflicts:
        return Text("No conflicts in that time.", QUIET)
    short = short_ids(c.get("agent_id") or "" for c in conflicts)
    listing = table()
    listing.padding = (0, 1, 0, 0)
    listing.add_column("TIME", no_wrap=True)
    listing.add_column("CONFLICT", no_wrap=True)
    listing.add_column("RESOLUTION", no_wrap=True)
    listing.add_column("AFTER", justify="right", no_wrap=True)
    listing.add_column("ROOM, AGENT", overflow="fold")
    for conflict in sorted(conflicts, key=lambda c: c["time"]):
        listing.add_row(
            local_time(conflict["time"]),
            Text(plain(conflict["kind"])),
            Text(plain(conflict["resolution"]), BAD if conflict["resolution"] == "failed" else ""),
            short_seconds(conflict["seconds"]),
            Text(_where(conflict, short)),
        )
    return listing


def _urgency(room: Room) -> tuple[int, str]:
    state = room["state"]
    return (_ORDER.index(state) if state in _ORDER else 0, room["name"])


def _agent_ids(rooms: Sequence[Room]) -> list[str]:
    return [agent["agent_id"] or agent["identity"] for room in rooms for agent in room["agents"]]


def _agents_of(room: Room, short: dict[str, str]) -> list[str]:
    """The holder is marked; the others should not be there."""
    return [
        ("* " if agent["holder"] else "  ") + plain(short[agent["agent_id"] or agent["identity"]])
        for agent in sorted(room["agents"], key=lambda a: not a["holder"])
    ]


def _where(conflict: Conflict, short: dict[str, str]) -> str:
    room, agent = conflict.get("room"), conflict.get("agent_id")
    return ", ".join(plain(text) for text in (room, short.get(agent or "")) if text) or "-"
