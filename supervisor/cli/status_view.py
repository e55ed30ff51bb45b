"""``status``: what is wrong, then everything else.

One rule: the first line says the one thing that is wrong, or that nothing is.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from supervisor.cli.documents import Agent, Problem, Status
from supervisor.cli.own_commands import about
from supervisor.cli.references import short_ids
from supervisor.cli.screen import BAD, GOOD, QUIET, STATE_STYLES, WARN, console, table
from supervisor.cli.text import ago, count, plain, size

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

_SEVERITIES = {"critical": 0, "error": 1, "warning": 2, "info": 9}
_FAILING = frozenset({"backoff", "crash_loop"})
_MARKS = {GOOD: "✓", WARN: "!", BAD: "✗"}


def is_wrong(status: Status) -> bool:
    """Whether something is wrong now: the exit code of ``status``."""
    return any(p["severity"] != "info" for p in problems(status))


def problems(status: Status) -> list[Problem]:
    """Worst first.  What the agents' own states say is said, also if nobody listed it."""
    listed = list(status["problems"])
    if not status["livekit"]["up"] and not any("livekit" in p["message"].lower() for p in listed):
        error = status["livekit"]["error"]
        listed.append(_problem(None, f"LiveKit at {status['livekit']['url']} is not reached", error))
    spoken_for = {p["agent_id"] for p in listed}
    for agent in status["agents"]:
        if agent["state"] in _FAILING and agent["id"] not in spoken_for:
            listed.append(_problem(agent["id"], agent["state"].replace("_", " "), agent["reason"]))
    return sorted(listed, key=lambda p: _SEVERITIES.get(p["severity"], 1))


def show(status: Status, config: Path | None) -> None:
    """Not wrapped: the commands in it are there to be copied."""
    console().print(render(status, config=config), crop=False, no_wrap=True, overflow="ignore")


def render(status: Status, now: datetime | None = None, config: Path | None = None) -> RenderableType:
    """``config`` is what the commands that mend something have to name, if anything."""
    from rich.console import Group

    moment = datetime.now(UTC) if now is None else now
    found = [_about_config(p, config) for p in problems(status)]
    parts: list[RenderableType] = [_headline(status, found), ""]
    if status["agents"]:
        parts += [_agents(status["agents"], moment), *_reasons(status["agents"], found), ""]
    parts.append(_facts(status, moment))
    if len(found) > 1:
        parts += ["", *(_notice(p, status["agents"]) for p in found[1:])]
    return Group(*parts)


def _about_config(problem: Problem, config: Path | None) -> Problem:
    fix = problem["fix"]
    return {**problem, "fix": about(config, fix)} if fix else problem


def _headline(status: Status, found: Sequence[Problem]) -> RenderableType:
    from rich.console import Group

    agents = status["agents"]
    if found and found[0]["severity"] != "info":
        return _notice(found[0], agents)
    good = f"Nothing is wrong: {_readiness(agents)}, {_healthy(status['rooms'].get('healthy', 0))}"
    return Group(_marked(GOOD, good, None), *(_notice(p, agents) for p in found[:1]))


def _readiness(agents: Sequence[Agent]) -> str:
    wanted = [a for a in agents if a["want"] != "stopped"]
    stopped = len(agents) - len(wanted)
    ready = f"{sum(a['ready'] for a in wanted)} of {count(len(wanted), 'agent')} ready"
    return f"{ready}, {stopped} stopped on purpose" if stopped else ready


def _healthy(rooms: int) -> str:
    return "1 room with its agent" if rooms == 1 else f"{rooms or 'no'} rooms with their agent"


def _notice(problem: Problem, agents: Sequence[Agent]) -> RenderableType:
    style = {"warning": WARN, "info": QUIET}.get(problem["severity"], BAD)
    return _marked(style, _about(problem, agents) + plain(problem["message"]), problem["fix"])


def _about(problem: Problem, agents: Sequence[Agent]) -> str:
    """Whom it is about, where the message itself does not say so."""
    if problem["room"]:
        subject = f"room {plain(problem['room'])}"
    else:
        agent = next((a for a in agents if a["id"] == problem["agent_id"]), None)
        subject = _title(agent) if agent is not None else plain(problem["agent_id"] or "")
    return f"{subject}: " if subject and subject not in plain(problem["message"]) else ""


def _marked(style: str, message: str, fix: str | None) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    grid = table(header=False)
    grid.padding = (0, 1, 0, 0)
    grid.add_row(Text(_MARKS.get(style, "·"), style), Text(message, style))
    # Beside the table, whose lines end where the screen does: the command is there to be copied.
    return Group(grid, Text(f"  {plain(fix)}", QUIET)) if fix else grid


def _agents(agents: Sequence[Agent], now: datetime) -> Table:
    from rich.text import Text

    short = short_ids(a["id"] for a in agents)
    listing = table()
    listing.padding = (0, 1, 0, 0)
    listing.add_column("AGENT", no_wrap=True, overflow="ellipsis", max_width=33)
    listing.add_column("STATE", no_wrap=True)
    for heading in ("FOR", "PID", "RESTARTS", "ROOMS", "MEMORY"):
        listing.add_column(heading, justify="right", no_wrap=True)
    for agent in agents:
        listing.add_row(
            Text(_title(agent, short[agent["id"]])),
            Text(plain(agent["state"]), STATE_STYLES.get(agent["state"], "")),
            ago(agent["since"], now),
            str(agent["pid"] or "-"),
            str(agent["restarts"]),
            str(agent["jobs"]),
            size(agent["memory_bytes"]),
        )
    return listing


def _reasons(agents: Sequence[Agent], found: Sequence[Problem]) -> list[RenderableType]:
    """Of those agents that no problem speaks for already."""
    spoken_for = {p["agent_id"] for p in found}
    short = short_ids(a["id"] for a in agents)
    return [
        _marked(QUIET, f"{_title(a, short[a['id']])}: {plain(a['reason'])}", None)
        for a in agents
        if a["reason"] and a["reason"] != a["state"] and a["id"] not in spoken_for
    ]


def _facts(status: Status, now: datetime) -> Table:
    from rich.text import Text

    livekit, daemon = status["livekit"], status["daemon"]
    rooms = ", ".join(f"{n} {plain(state)}" for state, n in status["rooms"].items() if n)
    reached = Text("reached", GOOD) if livekit["up"] else Text("not reached", BAD)
    facts = table(header=False)
    facts.add_row(Text("rooms", QUIET), Text(rooms or "none"))
    facts.add_row(Text("livekit", QUIET), Text.assemble(plain(livekit["url"]), "  ", reached))
    mode = plain(daemon["mode"])
    since = ago(daemon["since"], now)
    told = f"{plain(daemon['version'])}, pid {daemon['pid']}, up {since}, {mode}"
    facts.add_row(Text("daemon", QUIET), Text(told))
    return facts


def _title(agent: Agent, short: str | None = None) -> str:
    """The name people know, and enough of the ID to type."""
    id = plain(agent["id"] if short is None else short)
    return f"{plain(agent['name'])} {id}" if agent["name"] and agent["name"] != agent["id"] else id


def _problem(agent_id: str | None, message: str, reason: str | None) -> Problem:
    told = f"{message}: {reason}" if reason else message
    fix = f"livekit-supervisor logs {agent_id}" if agent_id else None
    return Problem(severity="error", agent_id=agent_id, room=None, message=told, fix=fix)
