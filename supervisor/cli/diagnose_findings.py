"""What a diagnosis finds: one sentence, what it was seen by, and what mends it.

One rule: ``error`` is said only of what is wrong now; what could become wrong is a ``warning``, what is right
is said, too, and what could not be looked at is ``unknown``, never right.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from supervisor.cli.documents import VERSION, Conflicts, Rooms, Status
from supervisor.cli.errors import CliError
from supervisor.cli.locate import Installation
from supervisor.config import Settings


class Severity(StrEnum):
    ERROR = "error"
    WARNING = "warning"
    UNKNOWN = "unknown"
    OK = "ok"


class Area(StrEnum):
    """In the order in which they are shown: what stands first often explains what follows."""

    CONFIGURATION = "configuration"
    DAEMON = "daemon"
    PROCESSES = "processes"
    LIVEKIT = "livekit"
    ROOMS = "rooms"
    LOGS = "logs"
    HOST = "host"
    LETTA = "letta"


@dataclass(frozen=True, slots=True)
class Finding:
    severity: Severity
    area: Area
    message: str
    evidence: tuple[str, ...] = ()
    fix: str | None = None
    """A command, or the lines that a file lacks, with its name as a comment.

    Which configuration a command of ours is about is added to all of them at the end."""

    def document(self) -> dict[str, object]:
        return {
            "severity": self.severity.value,
            "area": self.area.value,
            "message": self.message,
            "evidence": list(self.evidence),
            "fix": self.fix,
        }


class Notes:
    """Collects the findings of one area."""

    def __init__(self, area: Area) -> None:
        self._area = area
        self.findings: list[Finding] = []

    def error(self, message: str, *evidence: str, fix: str | None = None) -> None:
        self._add(Severity.ERROR, message, evidence, fix)

    def warning(self, message: str, *evidence: str, fix: str | None = None) -> None:
        self._add(Severity.WARNING, message, evidence, fix)

    def unknown(self, message: str, *evidence: str, fix: str | None = None) -> None:
        self._add(Severity.UNKNOWN, message, evidence, fix)

    def ok(self, message: str, *evidence: str) -> None:
        self._add(Severity.OK, message, evidence, None)

    def _add(self, severity: Severity, message: str, evidence: Iterable[str], fix: str | None) -> None:
        self.findings.append(Finding(severity, self._area, message, tuple(evidence), fix))


@dataclass(frozen=True, slots=True)
class Situation:
    """What every part of a diagnosis starts from."""

    file: Path
    environ: Mapping[str, str]
    settings: Settings | None
    """None when the configuration cannot be used."""
    installation: Installation | None
    """None when not even its paths can."""
    status: Status | None
    """None when the daemon does not answer; the same for the others."""
    absence: CliError | None
    """Why it does not; asked once, since a daemon that is stopped is waited for."""
    rooms: Rooms | None
    conflicts: Conflicts | None
    """Of the last hour."""
    metrics: Mapping[str, float]
    """The daemon's, by name and labels as they are exposed; empty when there are none."""

    @property
    def state(self) -> Path | None:
        return self.installation.state if self.installation is not None else None


@dataclass(frozen=True, slots=True)
class Report:
    findings: tuple[Finding, ...]

    @property
    def wrong(self) -> bool:
        """Is something wrong now?  The exit code."""
        return any(f.severity is Severity.ERROR for f in self.findings)

    def document(self) -> dict[str, object]:
        return {
            "version": VERSION,
            "wrong": self.wrong,
            "findings": [finding.document() for finding in self.findings],
        }
