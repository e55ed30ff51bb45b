"""Writes every generated file below ``grafana/``: ``python -m grafana.generate [--docs URL] [--check]``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from grafana.source import conflicts, grafana_alerting, overview, prometheus, promtool
from grafana.source.model import DOCS
from grafana.source.text import to_yaml

HERE = Path(__file__).parent


def files(docs: str = DOCS) -> dict[str, str]:
    """Path below ``grafana/`` to content."""
    alerts = "grafana/source/alerts.py"
    made = {
        "prometheus/rules/livekit-supervisor-alerts.yml": to_yaml(prometheus.alert_rules(docs), alerts),
        "prometheus/rules/livekit-supervisor-recordings.yml": to_yaml(
            prometheus.recording_rules(), "grafana/source/recordings.py"
        ),
        "provisioning/alerting/rules.yaml": to_yaml(grafana_alerting.alert_rules(docs), alerts),
        "prometheus/tests/silence.yml": to_yaml(promtool.silence(), "grafana/source/examples.py"),
        "prometheus/tests/limits.yml": to_yaml(promtool.limits(), "grafana/source/examples.py"),
    }
    for name, group in promtool.ALL.items():
        made[f"prometheus/tests/{name}.yml"] = to_yaml(
            promtool.of_group(group, docs), "grafana/source/examples.py"
        )
    for board in (overview, conflicts):
        made[f"dashboards/{board.UID}.json"] = _json(board.build(docs))
    return made


def _json(board: Dashboard) -> str:
    return json.dumps(board.build(), cls=JSONEncoder, indent=2, ensure_ascii=False, sort_keys=True) + "\n"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m grafana.generate", description=__doc__)
    parser.add_argument("--docs", default=DOCS, help="where the runbook is: the address of the docs folder")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if something differs")
    options = parser.parse_args(arguments)
    different = []
    for name, content in files(options.docs).items():
        path = HERE / name
        if path.exists() and path.read_text() == content:
            continue
        different.append(name)
        if not options.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
    for name in different:
        print(f"{'differs' if options.check else 'written'}: grafana/{name}")
    return 1 if options.check and different else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
