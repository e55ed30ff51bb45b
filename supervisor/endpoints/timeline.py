"""What the status page tells of the past: conflicts, deaths and recoveries, each as one line for a person.

The rule: the text is made from an event's name and fields alone, so that a line from the history reads
like the same line when it happened.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from supervisor.core.conflicts import Resolution

Fields = Mapping[str, object]

ON_PURPOSE = frozenset({"command", "config"})
"""Reasons of an exit that somebody wanted."""


class Tone(StrEnum):
    """How a line is to be taken."""

    GOOD = "good"
    PLAIN = "plain"
    WARNING = "warning"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Line:
    tone: Tone
    title: str
    detail: str = ""


def words(value: object) -> str:
    """``duplicate_agent`` as a person would write it."""
    return str(value).replace("_", " ")


def duration(seconds: object) -> str:
    """Milliseconds for what is quick, seconds for what a person would notice."""
    if not isinstance(seconds, (int, float)):
        return ""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _conflict(fields: Fields) -> Line:
    kind, resolution = words(fields.get("kind")), fields.get("resolution")
    tone = {Resolution.FAILED: Tone.BAD, Resolution.REPORTED: Tone.WARNING}.get(
        Resolution(str(resolution)), Tone.GOOD
    )
    detail = "" if tone is not Tone.GOOD else f"after {duration(fields.get('seconds'))}"
    return Line(tone, f"{kind.capitalize()}: {words(resolution)}", detail)


def _exited(fields: Fields) -> Line:
    reason = fields.get("reason")
    how = fields.get("signal") or (f"exit code {fields['exit_code']}" if "exit_code" in fields else "")
    detail = ", ".join(words(part) for part in (reason, how) if part)
    return Line(Tone.PLAIN if reason in ON_PURPOSE else Tone.BAD, "Worker exited", detail)


def _reload(fields: Fields) -> Line:
    if fields.get("outcome") == "ok":
        return Line(Tone.PLAIN, "Configuration reloaded")
    return Line(Tone.BAD, "Configuration not reloaded", str(fields.get("error", "")))


def _after(title: str, tone: Tone, blame: str = "") -> Callable[[Fields], Line]:
    def line(fields: Fields) -> Line:
        cause = f"{words(fields[blame])}, " if blame in fields else ""
        return Line(
            tone, title, f"{cause}after {duration(fields['seconds'])}" if "seconds" in fields else cause
        )

    return line


def _plain(title: str, tone: Tone, key: str = "") -> Callable[[Fields], Line]:
    return lambda fields: Line(tone, title, words(fields.get(key, "")))


LINES: Mapping[str, Callable[[Fields], Line]] = {
    "daemon_started": _plain("Supervisor started", Tone.PLAIN),
    "config_reloaded": _reload,
    "internal_error": _plain("Unexpected error", Tone.BAD, "error"),
    "loop_late": _plain("Supervisor was held up", Tone.WARNING),
    "store_failed": _plain("Trouble with state or log files", Tone.WARNING, "error"),
    "livekit_up": _plain("LiveKit reached", Tone.GOOD),
    "livekit_down": _plain("LiveKit not reached", Tone.BAD, "error"),
    "worker_adopted": _plain("Running worker adopted", Tone.PLAIN),
    "worker_ready": _after("Worker ready", Tone.GOOD),
    "worker_exited": _exited,
    "worker_restarted": _plain("Worker restarted", Tone.PLAIN, "reason"),
    "worker_spawn_failed": _plain("Worker could not be started", Tone.BAD, "error"),
    "worker_registration_lost": _plain("Worker lost LiveKit", Tone.WARNING),
    "drain_finished": _plain("Drain finished", Tone.PLAIN, "outcome"),
    "rogue_found": _plain("Rogue process", Tone.WARNING, "action"),
    "job_died": _plain("Job died", Tone.BAD, "cause"),
    "conflict_resolved": _conflict,
    "room_recovered": _after("Room has its agent again", Tone.GOOD, "cause"),
}
"""The events that make a line, by name."""


def entry(time: str, name: str, fields: Fields) -> dict[str, object] | None:
    """What the page gets of an event; None for one that is not on the timeline."""
    if name not in LINES:
        return None
    line = LINES[name](fields)
    return {
        "time": time,
        "name": name,
        "tone": line.tone.value,
        "title": line.title,
        "detail": line.detail,
        "agent_id": fields.get("agent_id"),
        "room": fields.get("room"),
    }
