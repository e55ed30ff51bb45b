"""The timeline: every event that makes a line makes a readable one, from the past as from the present."""

from __future__ import annotations

import typing
from dataclasses import fields
from enum import StrEnum

import pytest

from supervisor import events
from supervisor.core.conflicts import ConflictKind, Resolution
from supervisor.core.model import RecoveryCause
from supervisor.endpoints.timeline import LINES, duration, entry
from supervisor.events import (
    ConflictResolved,
    Event,
    RestartReason,
    RoomRecovered,
    RoomStateChanged,
    WorkerExited,
)

WHEN = "2026-01-01T00:00:00.000Z"
KINDS = {kind.name(): kind for kind in Event.__subclasses__()}


def example(kind: type[Event]) -> Event:
    """One with something in every field."""
    types = typing.get_type_hints(kind, vars(events))
    values: dict[str, object] = {}
    for field in fields(kind):
        wanted = types[field.name]
        if isinstance(wanted, type) and issubclass(wanted, StrEnum):
            values[field.name] = next(iter(wanted))
        else:
            values[field.name] = {int: 3, float: 1.5, bool: True}.get(wanted, "some_text")
    return kind(**values)


@pytest.mark.parametrize("name", LINES)
def test_every_line_belongs_to_an_event_and_can_be_made(name: str) -> None:
    line = entry(WHEN, name, example(KINDS[name]).data())
    assert line is not None
    assert line["title"]
    assert line["tone"] in ("good", "plain", "warning", "bad")
    assert "_" not in str(line["title"])


@pytest.mark.parametrize("name", LINES)
def test_fields_that_are_missing_cost_only_their_words(name: str) -> None:
    needed = {"kind": "ghost_agent", "resolution": "evicted"} if name == "conflict_resolved" else {}
    line = entry(WHEN, name, needed)
    assert line is not None
    assert line["title"]


@pytest.mark.parametrize(
    ("event", "tone", "title", "detail"),
    [
        (
            ConflictResolved(
                kind=ConflictKind.DUPLICATE_AGENT, resolution=Resolution.EVICTED, seconds=0.0121
            ),
            "good",
            "Duplicate agent: evicted",
            "after 12 ms",
        ),
        (
            ConflictResolved(kind=ConflictKind.FOREIGN_AGENT, resolution=Resolution.REPORTED, seconds=0),
            "warning",
            "Foreign agent: reported",
            "",
        ),
        (
            ConflictResolved(kind=ConflictKind.GHOST_AGENT, resolution=Resolution.FAILED, seconds=5),
            "bad",
            "Ghost agent: failed",
            "",
        ),
        (
            RoomRecovered(room="r", agent_id="a", cause=RecoveryCause.WORKER_DEATH, seconds=3.72),
            "good",
            "Room has its agent again",
            "worker death, after 3.7 s",
        ),
        (
            WorkerExited(agent_id="a", pid=1, reason=RestartReason.SIGNAL, signal="SIGKILL"),
            "bad",
            "Worker exited",
            "signal, SIGKILL",
        ),
        (
            WorkerExited(agent_id="a", pid=1, reason=RestartReason.EXIT, exit_code=0),
            "bad",
            "Worker exited",
            "exit, exit code 0",
        ),
        (
            WorkerExited(agent_id="a", pid=1, reason=RestartReason.COMMAND),
            "plain",
            "Worker exited",
            "command",
        ),
    ],
)
def test_how_a_line_reads(event: Event, tone: str, title: str, detail: str) -> None:
    line = entry(WHEN, event.name(), event.data())
    assert line is not None
    assert (line["tone"], line["title"], line["detail"], line["time"]) == (tone, title, detail, WHEN)


def test_what_is_no_conflict_death_or_recovery_makes_no_line() -> None:
    event = RoomStateChanged(room="r", old="healthy", new="conflict")
    assert entry(WHEN, event.name(), event.data()) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.0004, "0 ms"),
        (0.25, "250 ms"),
        (1.0, "1.0 s"),
        (75.25, "75.2 s"),
        (600, "10 min"),
        ("?", ""),
    ],
)
def test_durations(seconds: object, text: str) -> None:
    assert duration(seconds) == text
