"""The examples as tests for promtool."""

from __future__ import annotations

import re

from grafana.source.alerts import GROUPS
from grafana.source.examples import (
    EXAMPLES,
    LIMITS,
    NONE,
    SAMPLE_SECONDS,
    TARGET,
    UP,
    Example,
    Limit,
    agent,
    healthy,
    name,
    rollout,
)
from grafana.source.model import Alert, AlertGroup, seconds

EVERY = f"{SAMPLE_SECONDS}s"
RULES = "../rules/livekit-supervisor-alerts.yml"
FIRING = 'ALERTS{alertstate="firing"}'
FIRING_NAMES = f"count by (alertname) ({FIRING})"
UNALIGNED = ("15s", "30s")
"""Between samples that are not those of the evaluations."""
HOURS = "2h"
WATCHED = ("10m", "29m50s", "30m10s", "30m30s", "31m", "32m", "35m", "40m", "50m", "1h")


def of_group(group: AlertGroup, docs: str) -> object:
    """Each alert fires when it should, and not a moment before."""
    return _file(
        [_fires(alert, e, docs) for alert in group.alerts for e in EXAMPLES if e.alert == alert.name]
    )


def limits() -> object:
    """*More than N* is silent at N and fires at N + 1, also when evaluated between two samples."""
    return _file(
        [
            _counted(limit, n, every)
            for limit in LIMITS
            for every in UNALIGNED
            for n in (limit.most, limit.most + 1)
        ]
    )


def _counted(limit: Limit, n: int, every: str) -> object:
    fires = n > limit.most
    fired = (
        f"count by (alertname) (max_over_time({FIRING}[{HOURS}]))"
        if fires
        else f"count_over_time(ALERTS[{HOURS}])"
    )
    told = [{"labels": f'{{alertname="{limit.alert}"}}', "value": 1}] if fires else []
    return {
        "name": f"{limit.alert} {'fires' if fires else 'is silent'} at {n}, with a sample every {every}",
        "interval": every,
        "input_series": _series(limit.counting(n)),
        "promql_expr_test": [{"expr": fired, "eval_time": HOURS, "exp_samples": told}],
    }


def silence() -> object:
    """No alert fires when all is well, when every counter starts anew, or when there is nothing at all."""
    return _file(
        [
            _silent("all is well", healthy()),
            _silent("the supervisor was restarted, and every counter with it", healthy(restarted=True)),
            _silent("a new pod in place of the old one", rollout()),
            _silent("absent series", {}),
            _silent("no room but one that LiveKit tells nothing of", _unreadable_room()),
            _while_livekit_is_away(),
        ]
    )


def _unreadable_room() -> dict[str, str]:
    return {
        **healthy(),
        **{name("rooms", state=state): NONE for state in ("healthy", "missing_agent", "empty")},
        name("rooms", state="unknown"): UP,
        name("reconcile_last_success_timestamp_seconds", loop="rooms"): "0x360",
    }


def _while_livekit_is_away() -> object:
    """That alone is told, and not what follows from it."""
    following = {name("livekit_up"): NONE, agent("agent_up"): NONE, agent("agent_ready"): NONE}
    away = {"labels": '{alertname="LiveKitUnreachable"}', "value": 1}
    return {
        **_silent("but LiveKit is unreachable", {**healthy(), **following}),
        "promql_expr_test": [
            {"expr": FIRING_NAMES, "eval_time": time, "exp_samples": [away]} for time in WATCHED
        ],
    }


def _file(tests: list[object]) -> object:
    return {"rule_files": [RULES], "evaluation_interval": EVERY, "tests": tests}


def _fires(alert: Alert, example: Example, docs: str) -> object:
    fires = seconds(example.holds_from) + seconds(alert.wait)
    return {
        "name": f"{alert.name} fires {alert.wait} after it holds, and not before",
        "interval": EVERY,
        "input_series": _series(example.series),
        "alert_rule_test": [
            {"eval_time": _time(fires - SAMPLE_SECONDS), "alertname": alert.name, "exp_alerts": []},
            {
                "eval_time": _time(fires),
                "alertname": alert.name,
                "exp_alerts": [
                    {
                        "exp_labels": {**TARGET, "severity": alert.severity, **example.labels},
                        "exp_annotations": {
                            key: _filled(text, {**TARGET, **example.labels}, example.value)
                            for key, text in alert.annotations(docs).items()
                        },
                    }
                ],
            },
        ],
        # Nothing else fires because of it.
        "promql_expr_test": [
            {
                "expr": FIRING_NAMES,
                "eval_time": _time(fires),
                "exp_samples": [{"labels": f'{{alertname="{alert.name}"}}', "value": 1}],
            }
        ],
    }


def _silent(what: str, series: dict[str, str]) -> dict[str, object]:
    tests = [{"expr": FIRING, "eval_time": time, "exp_samples": []} for time in WATCHED]
    return {
        "name": f"nothing fires: {what}",
        "interval": EVERY,
        "input_series": _series(series),
        "promql_expr_test": tests,
    }


def _series(series: dict[str, str]) -> list[object]:
    return [{"series": selector, "values": values} for selector, values in series.items()]


def _filled(text: str, labels: dict[str, str], value: str) -> str:
    text = re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: labels[found[1]], text)
    return re.sub(r"\{\{ \$value[^}]*\}\}", value, text)


def _time(total: int) -> str:
    return f"{total // 60}m{total % 60}s" if total % 60 else f"{total // 60}m"


ALL = {group.name.removeprefix("livekit-supervisor").strip("-") or "daemon": group for group in GROUPS}
"""File name to group."""
