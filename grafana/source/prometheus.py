"""Alerts and recording rules as Prometheus reads them."""

from __future__ import annotations

from collections.abc import Callable

from grafana.source import recordings
from grafana.source.alerts import GROUPS
from grafana.source.model import Alert


def _keep(duration: str) -> str:
    return duration


def alert_rules(
    docs: str, *, wait: Callable[[str], str] = _keep, interval: Callable[[str], str] = _keep
) -> object:
    """``wait`` and ``interval`` may shorten what would take too long to watch."""
    return {
        "groups": [
            {
                "name": group.name,
                "interval": interval(group.interval),
                "rules": [_rule(alert, docs, wait(alert.wait)) for alert in group.alerts],
            }
            for group in GROUPS
        ]
    }


def _rule(alert: Alert, docs: str, wait: str) -> object:
    return {
        "alert": alert.name,
        "expr": alert.expr,
        "for": wait,
        "labels": {"severity": alert.severity},
        "annotations": alert.annotations(docs),
    }


def recording_rules(*, interval: Callable[[str], str] = _keep) -> object:
    rules = [{"record": r.record, "expr": r.expr} for r in recordings.RECORDINGS]
    return {"groups": [{"name": recordings.GROUP, "interval": interval(recordings.INTERVAL), "rules": rules}]}
