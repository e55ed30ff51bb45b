"""A real Prometheus scrapes a real supervisor: whatever rules and dashboards ask for is there."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from grafana.source import conflicts, overview
from grafana.source.alerts import ALERTS
from grafana.source.recordings import RECORDINGS
from tests.livekit.server import LiveKitServer
from tests.livekit.supervised import Supervised
from tests.observability import promql
from tests.observability.prometheus import Prometheus, promtool
from tests.observability.test_dashboards import expressions, load

VARIABLES = {
    "$__rate_interval": "30s",
    "$__range": "1m",
    "$job": ".*",
    "$instance": ".*",
    "$agent": ".*",
    "$kind": ".*",
}
RECORDED = {recording.record for recording in RECORDINGS}
OF_PROMETHEUS = {"up"}


def filled(expr: str) -> str:
    """As Grafana sends it, with everything chosen."""
    for variable, value in VARIABLES.items():
        expr = expr.replace(variable, value)
    assert "$" not in expr, expr
    return expr


def all_expressions() -> list[str]:
    of_rules = [alert.expr for alert in ALERTS] + [recording.expr for recording in RECORDINGS]
    of_dashboards = [filled(expr) for uid in (overview.UID, conflicts.UID) for expr in expressions(uid)]
    return list(dict.fromkeys([*of_rules, *of_dashboards]))


@dataclass
class World:
    supervised: Supervised
    prometheus: Prometheus


@pytest.fixture
async def world(tmp_path: Path, runtime_dir: Path) -> AsyncIterator[World]:
    """Agents that cost nothing, and a LiveKit that is not there: every series exists from the start."""
    agents: list[dict[str, Any]] = [
        {"id": "agent-a", "name": "A", "command": ["sleep", "600"], "max_rooms": 3},
        {"id": "agent-b", "name": "B", "command": ["sleep", "600"], "memory_limit": "100MiB"},
    ]
    supervised = Supervised(
        tmp_path / "daemon", runtime_dir, LiveKitServer(tmp_path / "absent"), agents=agents
    )
    await supervised.start(wait=False)
    try:
        await supervised.until(lambda s: all(a["ready"] for a in s["agents"]), 30)
        async with Prometheus(tmp_path / "prometheus", supervised.port).running() as prometheus:
            yield World(supervised, prometheus)
    finally:
        await supervised.close()


async def test_everything_that_is_asked_for_is_there(world: World) -> None:
    await every_expression_can_be_asked(world.prometheus)
    series = await every_selector_finds_something(world.prometheus)
    every_label_is_on_a_series(series)
    await every_variable_has_choices(world.prometheus)
    await promtool_finds_no_fault_in_the_scrape(world.supervised)


async def every_expression_can_be_asked(prometheus: Prometheus) -> None:
    for expr in all_expressions():
        await prometheus.query(expr)
    with pytest.raises(AssertionError, match="parse error"):
        await prometheus.query("rate(up)")


async def every_selector_finds_something(prometheus: Prometheus) -> dict[str, list[dict[str, str]]]:
    """Each selector alone, with its own matchers: it has series, although nothing has happened yet."""
    wanted = {str(selector) for expr in all_expressions() for selector in promql.selectors(expr)}
    found: dict[str, list[dict[str, str]]] = {}
    for selector in sorted(wanted):
        metric = selector.partition("{")[0]
        if metric in RECORDED:
            continue  # made of the others, by rules that are evaluated here, too
        found[selector] = await prometheus.labels(selector)
        assert found[selector], f"nothing is scraped for {selector}"
    assert not await prometheus.labels('livekit_supervisor_rooms{state="happy"}')
    ours = {selector.partition("{")[0] for selector in found}
    assert ours - OF_PROMETHEUS == {
        name for name in ours if name.startswith(("livekit_supervisor_", "process_"))
    }
    return found


def every_label_is_on_a_series(series: dict[str, list[dict[str, str]]]) -> None:
    """Those in ``by``, ``without``, ``on`` and ``ignoring``, and in matchers."""
    for expr in all_expressions():
        chosen = [str(s) for s in promql.selectors(expr) if s.metric not in RECORDED]
        there = {label for selector in chosen for labels in series[selector] for label in labels}
        if chosen:
            assert promql.grouped_labels(expr) <= there, expr
        for selector in promql.selectors(expr):
            if selector.metric not in RECORDED:
                assert selector.labels <= {label for s in series[str(selector)] for label in s}, expr


async def every_variable_has_choices(prometheus: Prometheus) -> None:
    for uid in (overview.UID, conflicts.UID):
        for variable in load(uid)["templating"]["list"]:
            if variable["type"] != "query":
                continue
            asked = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"])
            assert asked is not None, variable["query"]
            found = await prometheus.labels(filled(asked[1]))
            assert {series[asked[2]] for series in found}, variable["query"]


async def promtool_finds_no_fault_in_the_scrape(supervised: Supervised) -> None:
    status, text = await supervised.get("/metrics")
    assert status == 200
    done = await asyncio.to_thread(promtool, "check", "metrics", stdin=text.encode())
    assert (done.returncode, done.stdout) == (0, "")
