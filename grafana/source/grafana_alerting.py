"""The same alerts as rules that Grafana itself evaluates, in its file format for provisioning.

The rule: a rule alerts exactly when the Prometheus rule of that name would.  A PromQL result of any value, 0
and NaN among them, is an alert, so ``query`` is turned into 1 by ``any_value`` and compared by ``threshold``;
no result is no alert.

About dollars: Grafana fills in environment variables in labels, so a literal dollar is ``$$`` there; it
leaves annotations (but for ``${NAME}``) and the queries' models as they are.
"""

from __future__ import annotations

import hashlib
import re

from grafana.source.alerts import GROUPS
from grafana.source.model import Alert, AlertGroup

DATASOURCE_UID = "livekit-supervisor-prometheus"
EXPRESSION = "__expr__"
FOLDER = "LiveKit supervisor"
LOOK_BACK = 600


def alert_rules(docs: str) -> object:
    return {"apiVersion": 1, "groups": [_group(group, docs) for group in GROUPS]}


def _group(group: AlertGroup, docs: str) -> object:
    return {
        "orgId": 1,
        "name": group.name,
        "folder": FOLDER,
        "interval": group.interval,
        "rules": [rule(alert, docs) for alert in group.alerts],
    }


def rule(alert: Alert, docs: str) -> dict[str, object]:
    return {
        "uid": uid(alert),
        "title": alert.name,
        "condition": "threshold",
        "for": alert.wait,
        # No series that is wrong: all is well. A data source that does not answer is told as an error.
        "noDataState": "OK",
        "execErrState": "Error",
        "labels": {"severity": _literal(alert.severity)},
        "annotations": {name: _text(text) for name, text in alert.annotations(docs).items()},
        "isPaused": False,
        "data": [_query(alert.expr), _any_value(), _threshold()],
    }


def uid(alert: Alert) -> str:
    """Stable, and within Grafana's 40 characters for any name."""
    return f"lks-{hashlib.sha256(alert.name.encode()).hexdigest()[:16]}"


def _literal(text: str) -> str:
    """As a label: where Grafana would fill in environment variables."""
    return text.replace("$", "$$")


def _text(text: str) -> str:
    """In Grafana ``$value`` is a sentence about all parts; the number alone is in ``$values``."""
    return re.sub(r"\$value\b", "$values.query.Value", text)


def _query(expr: str) -> object:
    return {
        "refId": "query",
        "datasourceUid": DATASOURCE_UID,
        "relativeTimeRange": {"from": LOOK_BACK, "to": 0},
        "model": {
            "refId": "query",
            "datasource": {"type": "prometheus", "uid": DATASOURCE_UID},
            "editorMode": "code",
            "expr": expr,
            "instant": True,
            "range": False,
        },
    }


def _any_value() -> object:
    return _expression(
        "any_value",
        type="math",
        expression="is_number($query) || is_nan($query) || is_inf($query)",
    )


def _threshold() -> object:
    return _expression(
        "threshold",
        type="threshold",
        expression="any_value",
        conditions=[{"type": "query", "evaluator": {"type": "gt", "params": [0]}}],
    )


def _expression(ref_id: str, **model: object) -> object:
    return {
        "refId": ref_id,
        "datasourceUid": EXPRESSION,
        "relativeTimeRange": {"from": LOOK_BACK, "to": 0},
        "model": {"refId": ref_id, "datasource": {"type": EXPRESSION, "uid": EXPRESSION}, **model},
    }
