"""What an old installation's files tell: workers that were started, variables, and what could not be told.

One rule: files are read, never run, and what is not plainly there is a remark, not a guess.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from supervisor.config.types import LiveKitUrl, Word

MONITORS = ("room_health", "room-health", "health_monitor", "health-monitor", "room_monitor", "room-monitor")
"""In the names of programs that did what the supervisor does."""

_REFERENCE = re.compile(r"\$(?:\{|[A-Za-z_])")
_KINDS = {"LIVEKIT_URL": TypeAdapter(LiveKitUrl), "LIVEKIT_API_KEY": TypeAdapter(Word)}


def is_open(value: str) -> bool:
    """Whether it names a variable, so that it is not known what it comes to."""
    return _REFERENCE.search(value) is not None


@dataclass(slots=True)
class Worker:
    """One LiveKit worker that some file starts."""

    source: str
    """The file, for people."""
    title: str
    """What it is called there."""
    script: Path | None = None
    python: Path | None = None
    args: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    """Instead of ``script``: a program that is no Python script."""
    cwd: Path | None = None
    env: dict[str, str] = field(default_factory=dict)
    fills_in: bool = False
    """Whether ``${NAME}`` in what is told here stands for a variable of the environment."""
    env_files: list[Path] = field(default_factory=list)
    drain: float | None = None
    """Seconds."""
    memory_limit: int | None = None
    remarks: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Pieces:
    home: Path | None = None
    """Of whoever imports; None where that is not known."""
    workers: list[Worker] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)
    """Of ``.env`` files; the first that says something wins."""
    variable_files: list[Path] = field(default_factory=list)
    monitors: list[str] = field(default_factory=list)
    """Programs that put rooms right before, for people."""
    remarks: list[str] = field(default_factory=list)

    def add_variables(self, found: Mapping[str, str], source: Path) -> None:
        for name, value in found.items():
            if name.startswith("LIVEKIT_") and (fault := _fault(name, value)):
                self.remarks.append(f"{source}: {name} {fault}")
                continue
            known = self.variables.setdefault(name, value)
            if known != value and name.startswith("LIVEKIT_"):
                self.remarks.append(f"{source}: another {name}; the first was taken")

    def seems_monitor(self, text: str, source: str) -> bool:
        if any(word in text.lower() for word in MONITORS):
            self.monitors.append(source)
            return True
        return False


def _fault(name: str, value: str) -> str:
    """Why it cannot be taken for what it should be; "" when it can.  The value is never told."""
    if is_open(value):
        return "names a variable that is not known"
    kind = _KINDS.get(name)
    try:
        if kind is not None and value:
            kind.validate_python(value)
    except ValidationError as error:
        cause = error.errors(include_url=False, include_input=False)[0]
        return str(cause.get("ctx", {}).get("error") or cause["msg"])
    return ""
