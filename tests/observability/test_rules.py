"""The rules in every form: what is checked in is what the source says, and the real tools accept it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from grafana import generate
from grafana.source import examples, grafana_alerting, prometheus, recordings
from grafana.source import promtool as promtool_tests
from grafana.source.alerts import ALERTS, GROUPS
from grafana.source.model import Alert, Severity, seconds
from grafana.source.text import to_yaml
from tests.observability import promql
from tests.observability.prometheus import GRAFANA, amtool, promtool

RULES = sorted((GRAFANA / "prometheus" / "rules").glob("*.yml"))
TESTS = sorted((GRAFANA / "prometheus" / "tests").glob("*.yml"))
MANIFEST = GRAFANA.parent / "deploy" / "kubernetes" / "livekit-supervisor.yaml"
PROVISIONED = GRAFANA / "provisioning" / "alerting" / "rules.yaml"


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


# --- from one source ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(generate.files()))
def test_what_is_checked_in_is_what_the_source_says(name: str) -> None:
    assert (GRAFANA / name).read_text() == generate.files()[name], "run: make grafana"


def test_nothing_is_left_of_what_was_generated_before() -> None:
    made = {GRAFANA / name for name in generate.files()}
    folders = ("prometheus/rules", "prometheus/tests", "dashboards", "provisioning/alerting")
    assert {path for folder in folders for path in (GRAFANA / folder).iterdir()} == made


def test_the_place_of_the_runbook_is_a_setting() -> None:
    here = "https://docs.example.org/lks"
    for name, content in generate.files(here + "/").items():
        assert "docs/runbook.md" not in content, name
        assert (f"{here}/runbook.md#" in content) == ("runbook.md" in content and "dashboards" not in name)
    rule = yaml.safe_load(generate.files(here)["prometheus/rules/livekit-supervisor-alerts.yml"])
    assert rule["groups"][0]["rules"][0]["annotations"]["runbook_url"].startswith(f"{here}/runbook.md#")


# --- alerts, as they should be written ----------------------------------------------------------------


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_an_alert_says_all_that_is_needed(alert: Alert) -> None:
    assert re.fullmatch(r"LiveKit([A-Z][a-z]+)+", alert.name)
    assert alert.severity in ("critical", "warning")
    assert seconds(alert.wait) <= 300
    assert "$labels.instance" in alert.summary, "where?"
    assert alert.description.endswith(".")
    assert alert.runbook("docs") == f"docs/runbook.md#{alert.name.lower()}"
    assert any(example.alert == alert.name for example in examples.EXAMPLES), "no example"


def test_names_are_given_once() -> None:
    names = [alert.name for alert in ALERTS] + [group.name for group in GROUPS]
    assert len(set(names)) == len(names)


def test_labels_that_an_operator_adds_are_kept() -> None:
    """``by`` would drop them.  An ``on`` is for another target's metric, and only with what filters."""
    for alert in ALERTS:
        assert " by (" not in alert.expr, alert.name
        joins = re.findall(r"(\w+) on \(", alert.expr)
        assert set(joins) <= {"and", "unless"}, alert.name
        assert not joins or alert.name in ("LiveKitSupervisorDown", "LiveKitSupervisorRestarting")


def test_all_is_well_knows_every_metric_that_an_alert_asks_for() -> None:
    told = {promql.selectors(series)[0].metric for series in examples.healthy()}
    asked = {s.metric for alert in ALERTS for s in promql.selectors(alert.expr)}
    assert asked <= told, asked - told
    assert set(examples.healthy()) == set(examples.healthy(restarted=True))


def test_recording_rules_are_named_by_level_metric_and_operation() -> None:
    for recording in recordings.RECORDINGS:
        assert re.fullmatch(r"job_instance(_\w+)?:livekit_supervisor_\w+:\w+", recording.record)
    recorded = {recording.record for recording in recordings.RECORDINGS}
    asked = {s.metric for alert in ALERTS for s in promql.selectors(alert.expr)}
    assert not recorded & asked, "alerts work without the recording rules"


# --- the real tools -----------------------------------------------------------------------------------


def test_promtool_checks_the_rules() -> None:
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", *RULES)
    assert done.returncode == 0, done.stdout
    assert f"{len(ALERTS)} rules found" in done.stdout
    assert f"{len(recordings.RECORDINGS)} rules found" in done.stdout


def test_promtool_checks_the_configuration() -> None:
    done = promtool("check", "config", GRAFANA / "prometheus" / "prometheus.yml")
    assert done.returncode == 0, done.stdout
    assert "2 rule files found" in done.stdout


def test_in_kubernetes_a_supervisor_keeps_its_name_over_a_rollout(tmp_path: Path) -> None:
    """The example's relabelling, on what the manifest makes Kubernetes tell of pods.

    They are told as static targets: Debian's Prometheus does not know Kubernetes.
    """
    template = next(
        document for document in yaml.safe_load_all(MANIFEST.read_text()) if document["kind"] == "Deployment"
    )["spec"]["template"]
    (container,) = template["spec"]["containers"]
    (port,) = container["ports"]
    told = {
        "__meta_kubernetes_namespace": "voice",
        "__meta_kubernetes_pod_phase": "Running",
        "__meta_kubernetes_pod_container_port_name": port["name"],
        **{meta("label", name): value for name, value in template["metadata"]["labels"].items()},
        **{meta("annotation", name): value for name, value in template["metadata"]["annotations"].items()},
    }
    pods = {
        "10.0.0.1:9105": told,
        "10.0.0.2:9105": told,
        "10.0.0.3:9105": {**told, "__meta_kubernetes_pod_phase": "Failed"},
        "10.0.0.4:9105": {**told, meta("label", "app.kubernetes.io/name"): "livekit-supervisor-two"},
        "10.0.0.5:9100": {**told, meta("label", "app.kubernetes.io/name"): "node-exporter"},
    }
    config = load(GRAFANA / "prometheus" / "kubernetes.yml")
    (job,) = config["scrape_configs"]
    assert job.pop("kubernetes_sd_configs") == [{"role": "pod"}]
    job["static_configs"] = [{"targets": [address], "labels": labels} for address, labels in pods.items()]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    done = promtool(
        "check", "service-discovery", "--timeout=2s", tmp_path / "prometheus.yml", job["job_name"]
    )
    assert done.returncode == 0, done.stdout
    found = {each["discoveredLabels"]["__address__"]: each["labels"] for each in json.loads(done.stdout)}
    first, second, ended, another, foreign = (found[address] for address in pods)
    ours = {"job": "livekit-supervisor/voice/livekit-supervisor", "instance": "voice/livekit-supervisor"}
    assert first.items() >= ours.items()
    assert {**second, "__address__": ""} == {**first, "__address__": ""}
    assert not ended
    assert another["job"] == "livekit-supervisor/voice/livekit-supervisor-two"
    assert not foreign


def meta(kind: str, name: str) -> str:
    """As Prometheus calls a label or an annotation of a pod."""
    return f"__meta_kubernetes_pod_{kind}_{re.sub(r'[^a-zA-Z0-9_]', '_', name)}"


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_promtool_runs_the_unit_tests(path: Path) -> None:
    done = promtool("test", "rules", path)
    assert done.returncode == 0, done.stdout
    assert "SUCCESS" in done.stdout


def test_every_alert_has_a_unit_test() -> None:
    tested = {
        t["alertname"]
        for path in TESTS
        for test in load(path)["tests"]
        for t in test.get("alert_rule_test", ())
    }
    assert tested == {alert.name for alert in ALERTS}


def test_every_number_of_events_has_its_limit_tested() -> None:
    """But for those of which one is enough."""
    counting = {a.name: re.findall(r"increase\(.*?(> [\d.]+)$", a.expr, re.S | re.M) for a in ALERTS}
    limits = {limit.alert: [f"> {limit.most}.9"] for limit in examples.LIMITS}
    assert {name: found for name, found in counting.items() if set(found) - {"> 0"}} == limits


@pytest.mark.parametrize(
    ("series", "values"),
    [
        (examples.name("livekit_up"), examples.NONE),
        (examples.name("conflicts_total", kind="hung_job", resolution="terminated"), "0x200 1x160"),
    ],
    ids=["LiveKitUnreachable", "LiveKitHungJobs"],
)
def test_silence_would_notice(tmp_path: Path, series: str, values: str) -> None:
    """The unit test that nothing fires does fail when something does."""
    document: Any = promtool_tests.silence()
    document["rule_files"] = [str(RULES[0])]
    document["tests"] = document["tests"][:1]
    for entry in document["tests"][0]["input_series"]:
        if entry["series"] == series:
            entry["values"] = values
    (tmp_path / "silence.yml").write_text(to_yaml(document, "this test"))
    done = promtool("test", "rules", tmp_path / "silence.yml")
    assert done.returncode != 0
    assert "ALERTS" in done.stdout


def test_amtool_checks_the_example_for_alertmanager() -> None:
    path = GRAFANA / "alertmanager" / "alertmanager.yml"
    done = amtool("check-config", path)
    assert done.returncode == 0, done.stdout
    text = path.read_text()
    named = set(re.findall(r"LiveKit[A-Z]\w+", text))
    assert named <= {alert.name for alert in ALERTS}


@pytest.mark.parametrize(
    ("severity", "receiver"), [("critical", "operators-at-once"), ("warning", "operators")]
)
def test_alertmanager_routes_by_severity(severity: str, receiver: str) -> None:
    path = GRAFANA / "alertmanager" / "alertmanager.yml"
    done = amtool("config", "routes", "test", f"--config.file={path}", f"severity={severity}")
    assert done.stdout.split()[-1] == receiver


# --- for Grafana --------------------------------------------------------------------------------------

FIELDS = {
    "uid": str,
    "title": str,
    "condition": str,
    "for": str,
    "noDataState": str,
    "execErrState": str,
    "labels": dict,
    "annotations": dict,
    "isPaused": bool,
    "data": list,
}
QUERY_FIELDS = {"refId", "datasourceUid", "relativeTimeRange", "model"}


def provisioned() -> dict[str, Any]:
    document = load(PROVISIONED)
    assert document["apiVersion"] == 1
    return {
        rule["title"]: {**rule, "group": group} for group in document["groups"] for rule in group["rules"]
    }


def test_grafana_has_the_same_alerts_as_prometheus() -> None:
    document: Any = prometheus.alert_rules("docs")
    ours = provisioned()
    assert len(ours) == len(ALERTS)
    for group in document["groups"]:
        for rule in group["rules"]:
            same = ours[rule["alert"]]
            assert same["group"]["name"] == group["name"]
            assert same["group"]["interval"] == group["interval"]
            assert same["data"][0]["model"]["expr"] == rule["expr"]
            assert same["for"] == rule["for"]
            assert same["labels"] == rule["labels"]
            assert same["annotations"]["runbook_url"] == rule["annotations"]["runbook_url"]
            for text in ("summary", "description"):
                grafanas = same["annotations"][text].replace("$values.query.Value", "$value")
                assert grafanas == rule["annotations"][text]


@pytest.mark.parametrize("title", sorted(alert.name for alert in ALERTS))
def test_a_rule_has_the_fields_that_grafana_knows(title: str) -> None:
    rule = provisioned()[title]
    group = rule.pop("group")
    assert set(group) == {"orgId", "name", "folder", "interval", "rules"}
    assert seconds(group["interval"]) % 10 == 0, "Grafana's scheduler turns every 10 s"
    assert {key: type(value) for key, value in rule.items()} == FIELDS
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,40}", rule["uid"])
    assert rule["noDataState"] in ("NoData", "Alerting", "OK", "KeepLast")
    assert rule["execErrState"] in ("Error", "Alerting", "OK", "KeepLast")
    query, any_value, threshold = rule["data"]
    assert all(set(part) == QUERY_FIELDS for part in rule["data"])
    assert query["datasourceUid"] == query["model"]["datasource"]["uid"] == grafana_alerting.DATASOURCE_UID
    assert query["model"]["instant"]
    assert not query["model"]["range"]
    assert {any_value["datasourceUid"], threshold["datasourceUid"]} == {"__expr__"}
    assert f"${query['refId']}" in any_value["model"]["expression"]
    assert threshold["model"]["expression"] == any_value["refId"]
    assert rule["condition"] == threshold["refId"]
    for part in rule["data"]:
        assert part["model"]["refId"] == part["refId"]


def test_rules_of_grafana_have_ids_of_their_own() -> None:
    ids = [rule["uid"] for rule in provisioned().values()]
    assert len(set(ids)) == len(ids)


def test_dollars_are_doubled_in_labels_alone() -> None:
    """There, and only there, Grafana fills in environment variables."""
    severity = cast(Severity, "$HOME")
    text = "{{ $labels.instance }} {{ $value | humanize }}"
    alert = Alert("LiveKitDollar", severity, "0s", "up", text, "A.")
    rule: Any = grafana_alerting.rule(alert, "docs")
    assert rule["labels"] == {"severity": "$$HOME"}
    assert rule["annotations"]["summary"] == "{{ $labels.instance }} {{ $values.query.Value | humanize }}"
    assert "$$" not in PROVISIONED.read_text(), "no label of ours has one"


# --- provisioning and compose -------------------------------------------------------------------------


def test_the_data_source_is_the_one_that_the_rules_name() -> None:
    (source,) = load(GRAFANA / "provisioning/datasources/prometheus.yaml")["datasources"]
    assert source["uid"] == grafana_alerting.DATASOURCE_UID
    assert source["type"] == "prometheus"
    assert set(source) == {"name", "uid", "type", "access", "url", "jsonData"}
    scraped = load(GRAFANA / "prometheus/prometheus.yml")["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == scraped


def test_the_example_policy_sends_to_the_example_contact_point() -> None:
    (point,) = load(GRAFANA / "examples/contact-points.yaml")["contactPoints"]
    (policy,) = load(GRAFANA / "examples/policies.yaml")["policies"]
    (route,) = policy["routes"]
    assert route["receiver"] == route["routes"][0]["receiver"] == point["name"]
    assert route["object_matchers"] == [["grafana_folder", "=", grafana_alerting.FOLDER]]
    assert {r["type"] for r in point["receivers"]} == {"webhook"}


def test_compose_mounts_what_is_there_and_listens_on_loopback() -> None:
    document = load(GRAFANA / "compose.yaml")
    mounted = {}
    for service in document["services"].values():
        for volume in service["volumes"]:
            source, target = volume.split(":")[:2]
            if source.startswith("./"):
                assert (GRAFANA / source).exists(), volume
                assert volume.endswith(":ro")
                mounted[target] = GRAFANA / source
            else:
                assert source in document["volumes"]
        assert re.fullmatch(r"[a-z]+/[a-z]+:v?\d+\.\d+\.\d+", service["image"]), "pinned"
        listens = [o for o in service.get("command", ()) if o.startswith("--web.listen-address=")]
        assert all("=127.0.0.1:" in option for option in listens)
    assert document["services"]["grafana"]["environment"]["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"
    (provider,) = load(GRAFANA / "provisioning/dashboards/livekit-supervisor.yaml")["providers"]
    assert mounted[provider["options"]["path"]] == GRAFANA / "dashboards"
    home = document["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (GRAFANA / "dashboards" / Path(home).name).exists()
    for folder in ("datasources", "dashboards", "alerting"):
        assert mounted[f"/etc/grafana/provisioning/{folder}"] == GRAFANA / "provisioning" / folder
    for rule_file in load(mounted["/etc/prometheus/prometheus.yml"])["rule_files"]:
        assert (mounted["/etc/prometheus/rules"].parent / rule_file).exists()
