"""The dashboards: whatever is shown is chosen by job and instance, has a unit, and says what it means.

That Prometheus has what they ask for is in ``test_prometheus_scrape``.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana.source import conflicts, overview
from grafana.source.alerts import ALERTS
from supervisor.core.worker_state import WorkerState
from tests.observability import promql
from tests.observability.prometheus import GRAFANA

UIDS = (overview.UID, conflicts.UID)
OURS = {("job", "=~", "$job"), ("instance", "=~", "$instance")}


def load(uid: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((GRAFANA / "dashboards" / f"{uid}.json").read_text())
    return document


def panels(uid: str) -> list[dict[str, Any]]:
    return [panel for panel in load(uid)["panels"] if panel["type"] != "row"]


def targets(uid: str) -> list[dict[str, Any]]:
    return [target for panel in panels(uid) for target in panel["targets"]]


def expressions(uid: str) -> list[str]:
    marked = [a["expr"] for a in load(uid)["annotations"]["list"] if "expr" in a]
    return [target["expr"] for target in targets(uid)] + marked


ALL_PANELS = [pytest.param(panel, id=panel["title"]) for uid in UIDS for panel in panels(uid)]


# --- what Grafana reads -------------------------------------------------------------------------------


@pytest.mark.parametrize("uid", UIDS)
def test_grafanas_own_library_reads_it_without_loss(uid: str) -> None:
    document = load(uid)
    again = json.loads(json.dumps(Dashboard.from_json(document), cls=JSONEncoder))
    for annotation in document["annotations"]["list"]:
        for ours_alone in ("titleFormat", "tagKeys", "step"):  # the library does not know these
            assert annotation.pop(ours_alone)
    assert again == document


@pytest.mark.parametrize("uid", UIDS)
def test_a_dashboard_is_known_by_its_uid(uid: str) -> None:
    document = load(uid)
    assert document["uid"] == uid
    assert len(uid) <= 40
    assert document.get("id") is None
    assert document["schemaVersion"] >= 36
    assert not document["editable"]


# --- choices ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("uid", UIDS)
def test_data_source_job_and_instance_can_be_chosen(uid: str) -> None:
    variables = {v["name"]: v for v in load(uid)["templating"]["list"]}
    assert list(variables)[:5] == ["datasource", "job", "instance", "agent", "docs"]
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    for name in set(variables) - {"datasource", "docs"}:
        assert variables[name]["type"] == "query"
        assert variables[name]["includeAll"]
        assert variables[name]["multi"]
        assert variables[name]["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert variables["docs"]["query"] == "docs"


@pytest.mark.parametrize("uid", UIDS)
def test_all_is_all_of_ours_and_nobody_elses(uid: str) -> None:
    """Without a pattern of its own, *All* is every value that was found: those of our targets."""
    variables = {v["name"]: v for v in load(uid)["templating"]["list"]}
    for name in ("job", "instance"):
        assert "allValue" not in variables[name]
        asked = re.fullmatch(
            rf"label_values\((livekit_supervisor_\w+)(\{{.*\}})?, {name}\)", variables[name]["query"]
        )
        assert asked, variables[name]["query"]


@pytest.mark.parametrize("uid", UIDS)
def test_every_query_asks_the_chosen_data_source(uid: str) -> None:
    asked = [*targets(uid), *panels(uid), *load(uid)["annotations"]["list"]]
    for part in asked:
        assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, part


@pytest.mark.parametrize("uid", UIDS)
def test_every_query_is_about_the_chosen_job_and_instance(uid: str) -> None:
    for expr in expressions(uid):
        found = promql.selectors(expr)
        assert found, expr
        for selector in found:
            assert set(selector.matchers) >= OURS, expr


@pytest.mark.parametrize("uid", UIDS)
def test_series_of_agents_are_those_of_the_chosen_agents(uid: str) -> None:
    of_agents = re.compile(r"livekit_supervisor_(agent_|claim|dispatches|drains)")
    for target in targets(uid):
        for selector in promql.selectors(target["expr"]):
            if of_agents.match(selector.metric):
                assert ("agent_id", "=~", "$agent") in selector.matchers, target["expr"]


@pytest.mark.parametrize("uid", UIDS)
def test_ranges_follow_the_zoom(uid: str) -> None:
    for expr in expressions(uid):
        assert set(promql.ranges(expr)) <= {"$__rate_interval", "$__range"}, expr
        assert ("rate(" in expr or "increase(" in expr) <= bool(promql.ranges(expr))
    for target in targets(uid):
        whole = "$__range" in promql.ranges(target["expr"])
        assert not whole or target["instant"], "a range of the whole time is one number"


# --- to be understood ---------------------------------------------------------------------------------


@pytest.mark.parametrize("panel", ALL_PANELS)
def test_a_panel_says_what_it_means(panel: dict[str, Any]) -> None:
    assert panel["description"].endswith((".", "?"))
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["title"]
    for link in panel.get("links", ()):
        assert link["url"].startswith("${docs}/runbook.md#")


@pytest.mark.parametrize("uid", UIDS)
def test_what_has_an_alert_is_linked_to_its_section(uid: str) -> None:
    linked = {link["title"] for panel in panels(uid) for link in panel.get("links", ())}
    assert len(linked) >= 4
    assert linked <= {f"Runbook: {alert.name}" for alert in ALERTS}
    assert any(link["url"] == "${docs}/runbook.md" for link in load(uid)["links"])


@pytest.mark.parametrize("uid", UIDS)
def test_conflicts_and_restarts_are_marked(uid: str) -> None:
    marks = {a["name"]: a for a in load(uid)["annotations"]["list"]}
    assert "conflicts_total" in marks["Conflicts"]["expr"]
    assert "agent_restarts_total" in marks["Workers restarted"]["expr"]
    assert all(mark["enable"] and mark["titleFormat"] for mark in marks.values())


@pytest.mark.parametrize("uid", UIDS)
def test_the_dashboards_lead_to_each_other(uid: str) -> None:
    (other,) = set(UIDS) - {uid}
    (link,) = [link for link in load(uid)["links"] if link["url"] == f"/d/{other}"]
    assert link["includeVars"]
    assert link["keepTime"]


def test_every_state_of_a_worker_has_its_text_and_number() -> None:
    assert list(overview.STATES) == [state.value for state in WorkerState]
    for number, state in enumerate(overview.STATES):
        assert f'state="{state}"}} * {number}' in overview.STATE


def test_legends_name_labels_that_the_result_has() -> None:
    for uid in UIDS:
        for target in targets(uid):
            left = promql.result_labels(target["expr"])
            named = set(re.findall(r"\{\{(\w+)\}\}", target.get("legendFormat", "")))
            assert left is None or named <= left, target


# --- on a phone, and from across the room -------------------------------------------------------------


@pytest.mark.parametrize("uid", UIDS)
def test_what_is_wrong_is_at_the_top_and_large(uid: str) -> None:
    document = load(uid)
    first_row = [p for p in document["panels"] if p["gridPos"]["y"] == 0]
    assert document["panels"][: len(first_row)] == first_row, "a phone shows them first"
    assert 4 <= len(first_row) <= 6, "readable from afar"
    assert {p["type"] for p in first_row} == {"stat"}
    for panel in first_row:
        assert panel["gridPos"]["h"] >= 5
        assert panel["options"]["colorMode"] == "background_solid"
        assert len(panel["title"]) <= 25
        assert panel["fieldConfig"]["defaults"]["noValue"] == "no data"


@pytest.mark.parametrize("uid", UIDS)
def test_panels_fill_the_width_and_do_not_overlap(uid: str) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in load(uid)["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    order = [(p["gridPos"]["y"], p["gridPos"]["x"]) for p in load(uid)["panels"]]
    assert order == sorted(order), "the order on a phone"
