"""What an alert is, before it is Prometheus's or Grafana's.

The rule: texts may use ``{{ $labels.NAME }}`` and ``{{ $value | FUNCTION }}``, which both understand, and
nothing else of either.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Severity = Literal["critical", "warning"]
"""Critical: callers are hurt now, so wake somebody. Warning: look at it in working hours."""

DOCS = "docs"
"""Where the runbook is, as alerts and dashboards link to it, unless the generator is told another place."""


@dataclass(frozen=True, slots=True)
class Alert:
    name: str
    severity: Severity
    wait: str
    """Prometheus's ``for``: how long ``expr`` has to hold."""
    expr: str
    """Has a result exactly while something is wrong; ready for any number of supervisors."""
    summary: str
    description: str

    def runbook(self, docs: str) -> str:
        return f"{docs.rstrip('/')}/runbook.md#{self.name.lower()}"

    def annotations(self, docs: str) -> dict[str, str]:
        return {
            "summary": self.summary,
            "description": self.description,
            "runbook_url": self.runbook(docs),
        }


@dataclass(frozen=True, slots=True)
class AlertGroup:
    name: str
    interval: str
    """How often it is evaluated; Grafana wants a multiple of 10 s."""
    alerts: tuple[Alert, ...]


@dataclass(frozen=True, slots=True)
class Recording:
    record: str
    expr: str


def seconds(duration: str) -> int:
    """``90s``, ``1m30s``, ``1h`` in seconds."""
    parts = re.findall(r"(\d+)([smhd])", duration)
    assert "".join(number + unit for number, unit in parts) == duration, duration
    return sum(int(number) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[unit] for number, unit in parts)
