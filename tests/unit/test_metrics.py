"""Every name of the catalogue: there from the start with 0, and moved by the event it is about."""

from __future__ import annotations

import time
from functools import partial

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from supervisor import __version__
from supervisor.core.conflicts import ConflictKind, Resolution
from supervisor.core.model import ClaimOutcome, RecoveryCause, RoomState
from supervisor.core.worker_state import WorkerState
from supervisor.events import (
    ClaimDecided,
    ConfigReloaded,
    ConflictResolved,
    DispatchChanged,
    DispatchOutcome,
    DrainFinished,
    Event,
    LiveKitDown,
    LiveKitRequest,
    LiveKitUp,
    Loop,
    LoopOutcome,
    Reconciled,
    RestartReason,
    RoomRecovered,
    StoreFailed,
    WebhookOutcome,
    WebhookReceived,
    WorkerReady,
    WorkerRestarted,
)
from supervisor.metrics import Metrics

A, B = "agent-a", "agent-b"
P = "livekit_supervisor_"
OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


@pytest.fixture
def metrics() -> Metrics:
    return Metrics([A, B])


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(P + name, labels)


# name -> number of series at the start, with two agents
SERIES = {
    "build_info": 1,
    "agent_up": 2,
    "agent_ready": 2,
    "agent_state": 2 * 7,
    "agent_restarts_total": 2 * 9,
    "agent_active_jobs": 2,
    "agent_max_rooms": 2,
    "agent_resident_memory_bytes": 2,
    "agent_memory_limit_bytes": 2,
    "agent_cpu_seconds_total": 2,
    "agent_start_duration_seconds_count": 2,
    "drains_total": 2 * 3,
    "conflicts_total": 10 * 6,
    "conflicts_unresolved": 10,
    "conflict_resolution_seconds_count": 10,
    "recovery_seconds_count": 6,
    "rooms": 5,
    "claims": 2,
    "claim_requests_total": 2 * 5,
    "dispatches_total": 2 * 5,
    "reconcile_duration_seconds_count": 3,
    "reconcile_total": 3 * 3,
    "reconcile_last_success_timestamp_seconds": 3,
    "livekit_up": 1,
    "livekit_request_duration_seconds_count": 6,
    "livekit_requests_total": 6 * 6,
    "webhooks_total": 13 * 6,
    "webhooks_dropped_total": 1,
    "webhook_last_received_timestamp_seconds": 1,
    "config_reloads_total": 2,
    "config_last_reload_success": 1,
    "store_errors_total": 1,
}
NOT_ZERO = {"build_info", "config_last_reload_success"}


def test_every_name_is_there_from_the_start_with_0(metrics: Metrics) -> None:
    samples = [s for family in metrics.registry.collect() for s in family.samples if s.name.startswith(P)]
    counts = {name: sum(s.name == P + name for s in samples) for name in SERIES}
    assert counts == SERIES
    others = {s.name.removeprefix(P) for s in samples} - set(SERIES)
    assert {name.rpartition("_")[2] for name in others} == {"bucket", "sum"}
    assert {s.name.removeprefix(P) for s in samples if s.value != 0} == NOT_ZERO


def test_the_version_is_a_label(metrics: Metrics) -> None:
    assert value(metrics, "build_info", version=__version__) == 1


def test_process_metrics_of_the_daemon(metrics: Metrics) -> None:
    names = {family.name for family in metrics.registry.collect()}
    assert {"process_cpu_seconds", "process_resident_memory_bytes", "process_open_fds"} <= names


def agent(**labels: str) -> dict[str, str]:
    return {"agent_id": A, **labels}


MOVES: list[tuple[Event, str, dict[str, str]]] = [
    (WorkerRestarted(agent_id=A, reason=RestartReason.OOM), "agent_restarts_total", agent(reason="oom")),
    (WorkerReady(agent_id=A, pid=1, seconds=2.0), "agent_start_duration_seconds_count", agent()),
    (DrainFinished(agent_id=A, outcome="timeout"), "drains_total", agent(outcome="timeout")),
    (
        ClaimDecided(agent_id=A, room="r", job_id="j", outcome=ClaimOutcome.HELD),
        "claim_requests_total",
        agent(outcome="held"),
    ),
    (
        DispatchChanged(agent_id=A, room="r", outcome=DispatchOutcome.LOST),
        "dispatches_total",
        agent(outcome="lost"),
    ),
    (
        ConflictResolved(kind=ConflictKind.DUPLICATE_AGENT, resolution=Resolution.EVICTED, seconds=0.005),
        "conflicts_total",
        {"kind": "duplicate_agent", "resolution": "evicted"},
    ),
    (
        ConflictResolved(kind=ConflictKind.DUPLICATE_AGENT, resolution=Resolution.EVICTED, seconds=0.005),
        "conflict_resolution_seconds_count",
        {"kind": "duplicate_agent"},
    ),
    (
        RoomRecovered(room="r", agent_id=A, cause=RecoveryCause.WORKER_DEATH, seconds=1.0),
        "recovery_seconds_count",
        {"cause": "worker_death"},
    ),
    (
        LiveKitRequest(method="list_rooms", outcome="timeout", seconds=5.0),
        "livekit_requests_total",
        {"method": "list_rooms", "outcome": "timeout"},
    ),
    (
        LiveKitRequest(method="list_rooms", outcome="ok", seconds=0.002),
        "livekit_request_duration_seconds_count",
        {"method": "list_rooms"},
    ),
    (
        WebhookReceived(event="room_started", outcome=WebhookOutcome.UNSIGNED),
        "webhooks_total",
        {"event": "room_started", "outcome": "unsigned"},
    ),
    (
        WebhookReceived(event="made_up", outcome=WebhookOutcome.ACCEPTED),
        "webhooks_total",
        {"event": "other", "outcome": "accepted"},
    ),
    (
        WebhookReceived(event="other", outcome=WebhookOutcome.ACCEPTED, dropped=1),
        "webhooks_dropped_total",
        {},
    ),
    (
        Reconciled(loop=Loop.SCAN, outcome=LoopOutcome.REQUEUED, seconds=0.1),
        "reconcile_total",
        {"loop": "scan", "outcome": "requeued"},
    ),
    (
        Reconciled(loop=Loop.ROOMS, outcome=LoopOutcome.OK, seconds=0.1),
        "reconcile_duration_seconds_count",
        {"loop": "rooms"},
    ),
    (ConfigReloaded(outcome="ok"), "config_reloads_total", {"outcome": "ok"}),
    (StoreFailed(operation="write", error="disk full"), "store_errors_total", {}),
    (LiveKitUp(url="ws://x"), "livekit_up", {}),
]


@pytest.mark.parametrize(("event", "name", "labels"), MOVES, ids=[m[1] for m in MOVES])
def test_an_event_moves_its_series_by_one(
    metrics: Metrics, event: Event, name: str, labels: dict[str, str]
) -> None:
    assert value(metrics, name, **labels) == 0
    metrics(event)
    assert value(metrics, name, **labels) == 1


def test_a_recovery_is_observed_in_seconds(metrics: Metrics) -> None:
    metrics(RoomRecovered(room="r", agent_id=A, cause=RecoveryCause.OTHER, seconds=1.5))
    assert value(metrics, "recovery_seconds_sum", cause="other") == 1.5
    assert value(metrics, "recovery_seconds_bucket", cause="other", le="1.0") == 0
    assert value(metrics, "recovery_seconds_bucket", cause="other", le="2.0") == 1


@pytest.mark.parametrize("resolution", [Resolution.REPORTED, Resolution.FAILED])
def test_a_conflict_that_goes_on_has_no_time_of_resolution(metrics: Metrics, resolution: Resolution) -> None:
    metrics(ConflictResolved(kind=ConflictKind.GHOST_AGENT, resolution=resolution, seconds=3))
    assert value(metrics, "conflicts_total", kind="ghost_agent", resolution=resolution) == 1
    assert value(metrics, "conflict_resolution_seconds_count", kind="ghost_agent") == 0


def test_livekit_goes_down(metrics: Metrics) -> None:
    metrics(LiveKitUp(url="u"))
    metrics(LiveKitDown(url="u", error="refused"))
    assert value(metrics, "livekit_up") == 0


def test_only_a_genuine_webhook_says_when_the_last_came(metrics: Metrics) -> None:
    last = partial(value, metrics, "webhook_last_received_timestamp_seconds")
    for outcome in (WebhookOutcome.UNSIGNED, WebhookOutcome.MALFORMED, WebhookOutcome.OVERSIZED):
        metrics(WebhookReceived(event="other", outcome=outcome))
    assert last() == 0
    before = time.time()
    metrics(WebhookReceived(event="room_started", outcome=WebhookOutcome.REPEATED))
    assert before <= (last() or 0) <= time.time()


def test_only_success_moves_a_loop_s_last_success(metrics: Metrics) -> None:
    last = partial(value, metrics, "reconcile_last_success_timestamp_seconds", loop="workers")
    metrics(Reconciled(loop=Loop.WORKERS, outcome=LoopOutcome.FAILED, seconds=0.1))
    assert last() == 0
    before = time.time()
    metrics(Reconciled(loop=Loop.WORKERS, outcome=LoopOutcome.OK, seconds=0.1))
    assert before <= (last() or 0) <= time.time()


def test_a_failed_reload_shows_until_one_succeeds(metrics: Metrics) -> None:
    metrics(ConfigReloaded(outcome="failed", error="config.yaml:3: agents: missing"))
    assert value(metrics, "config_last_reload_success") == 0
    metrics(ConfigReloaded(outcome="ok"))
    assert value(metrics, "config_last_reload_success") == 1


# --- the present ---


def test_the_present_of_an_agent(metrics: Metrics) -> None:
    metrics.agent(A, up=True, ready=True, state=WorkerState.READY, jobs=2, claims=1, max_rooms=5)
    metrics.agent(A, memory_bytes=1000, memory_limit_bytes=2000)
    assert [
        value(metrics, f"agent_{n}", agent_id=A) for n in ("up", "ready", "active_jobs", "max_rooms")
    ] == [
        1,
        1,
        2,
        5,
    ]
    assert value(metrics, "claims", agent_id=A) == 1
    assert value(metrics, "agent_resident_memory_bytes", agent_id=A) == 1000
    assert value(metrics, "agent_memory_limit_bytes", agent_id=A) == 2000


def test_an_agent_is_in_one_state(metrics: Metrics) -> None:
    metrics.agent(A, state=WorkerState.STARTING)
    metrics.agent(A, state=WorkerState.CRASH_LOOP)
    states = {s: value(metrics, "agent_state", agent_id=A, state=s) for s in WorkerState}
    assert states == {s: float(s is WorkerState.CRASH_LOOP) for s in WorkerState}


def test_what_is_left_out_has_none(metrics: Metrics) -> None:
    metrics.rooms({RoomState.HEALTHY: 3, RoomState.CONFLICT: 1})
    metrics.rooms({RoomState.HEALTHY: 4})
    assert value(metrics, "rooms", state="healthy") == 4
    assert value(metrics, "rooms", state="conflict") == 0
    metrics.unresolved({ConflictKind.HUNG_JOB: 1})
    assert value(metrics, "conflicts_unresolved", kind="hung_job") == 1
    metrics.unresolved({})
    assert value(metrics, "conflicts_unresolved", kind="hung_job") == 0


def test_cpu_seconds_never_fall(metrics: Metrics) -> None:
    cpu = partial(value, metrics, "agent_cpu_seconds_total", agent_id=A)
    worker, job, later_job = (10, 1.0), (11, 2.0), (11, 3.0)
    metrics.agent_cpu(A, {worker: 5.0, job: 2.0})
    assert cpu() == 7
    metrics.agent_cpu(A, {worker: 6.0})  # the job is gone, what it used is not
    assert cpu() == 8
    metrics.agent_cpu(A, {worker: 6.0, later_job: 0.5})  # another process, though of the same pid
    assert cpu() == 8.5
    metrics.agent_cpu(A, {})  # nothing could be read
    metrics.agent_cpu(A, {worker: 6.5, later_job: 0.5})
    assert cpu() == 9


def test_what_an_adopted_process_has_used_before_is_no_work_of_this_moment(metrics: Metrics) -> None:
    cpu = partial(value, metrics, "agent_cpu_seconds_total", agent_id=A)
    metrics.agent_cpu(A, {(10, 1.0): 5_000.0}, adopted=True)
    assert cpu() == 0
    metrics.agent_cpu(A, {(10, 1.0): 5_001.5}, adopted=True)
    assert cpu() == 1.5
    metrics.agent_cpu(A, {(11, 2.0): 0.5}, adopted=False)
    assert cpu() == 2


def test_the_daemon_is_asked_before_each_scrape(metrics: Metrics) -> None:
    metrics.before_scrape(lambda: metrics.agent(A, jobs=7))
    body, _ = metrics.render("")
    assert f'{P}agent_active_jobs{{agent_id="{A}"}} 7.0' in body.decode()


# --- agents come and go ---


def test_a_reload_adds_and_removes_agents_and_keeps_the_others(metrics: Metrics) -> None:
    metrics(WorkerRestarted(agent_id=A, reason=RestartReason.EXIT))
    metrics(WorkerRestarted(agent_id=B, reason=RestartReason.EXIT))
    metrics.set_agents([A, "agent-c"])
    assert value(metrics, "agent_restarts_total", agent_id=A, reason="exit") == 1
    assert value(metrics, "agent_restarts_total", agent_id="agent-c", reason="exit") == 0
    assert B not in metrics.render("")[0].decode()
    metrics.set_agents([A, B])
    assert value(metrics, "agent_restarts_total", agent_id=B, reason="exit") == 0


def test_an_agent_that_is_not_configured_gets_no_series(metrics: Metrics) -> None:
    metrics(WorkerRestarted(agent_id="stranger", reason=RestartReason.EXIT))
    metrics(WorkerReady(agent_id="stranger", pid=1, seconds=1.0))
    metrics(ClaimDecided(agent_id="stranger", room="r", job_id="j", outcome=ClaimOutcome.GRANTED))
    metrics.agent("stranger", up=True)
    metrics.agent_cpu("stranger", {(1, 1.0): 1.0})
    assert "stranger" not in metrics.render("")[0].decode()


def test_a_conflict_of_a_removed_agent_counts_all_the_same(metrics: Metrics) -> None:
    metrics(
        ConflictResolved(
            kind=ConflictKind.DUPLICATE_PROCESS,
            resolution=Resolution.TERMINATED,
            seconds=1,
            agent_id="stranger",
        )
    )
    assert value(metrics, "conflicts_total", kind="duplicate_process", resolution="terminated") == 1


# --- the scrape ---


def strange(metrics: Metrics) -> CollectorRegistry:
    """Values and labels that have to be escaped or written in another way."""
    metrics.set_agents([A, 'quote"back\\slash\nline', "日本"])
    metrics.agent('quote"back\\slash\nline', jobs=3, memory_bytes=123456789012.0, up=True)
    metrics.agent("日本", memory_bytes=0.1, jobs=-1)
    for seconds in (0.0001, 0.2, 1e9):
        metrics(RoomRecovered(room="r", agent_id=A, cause=RecoveryCause.OTHER, seconds=seconds))
    for collector in list(metrics.registry._collector_to_names):  # its values change between two reads
        if type(collector).__name__ == "ProcessCollector":
            metrics.registry.unregister(collector)
    return metrics.registry


@pytest.mark.parametrize("scrapes", [1, 2])
def test_our_text_is_the_library_s_text(metrics: Metrics, scrapes: int) -> None:
    registry = strange(metrics)
    for _ in range(scrapes):
        body, content_type = metrics.render("text/plain")
    assert body.decode() == generate_latest(registry).decode()
    assert content_type.startswith("text/plain; version=0.0.4")


@pytest.mark.parametrize("scrapes", [1, 2])
def test_our_openmetrics_is_the_library_s_openmetrics(metrics: Metrics, scrapes: int) -> None:
    registry = strange(metrics)
    for _ in range(scrapes):
        body, content_type = metrics.render(OPENMETRICS)
    assert body.decode() == generate_openmetrics(registry).decode()  # type: ignore[no-untyped-call]
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")


@pytest.mark.parametrize("accept", ["", "*/*", "nonsense;;=", "application/json"])
def test_plain_text_for_everybody_else(metrics: Metrics, accept: str) -> None:
    body, content_type = metrics.render(accept)
    assert content_type.startswith("text/plain")
    assert list(text_string_to_metric_families(body.decode()))


def test_a_scrape_costs_the_same_for_no_room_and_for_10_000() -> None:
    """What it asks of the daemon is in ``tests/simulation/test_scrape_cost.py``, its time in the bench."""
    metrics = Metrics(f"agent-{n:08d}-49a8-4982-8e36-0f1146f9a66e" for n in range(100))
    empty, _ = metrics.render(OPENMETRICS)
    metrics.rooms({RoomState.HEALTHY: 10_000})
    full, _ = metrics.render(OPENMETRICS)
    assert full.count(b"\n") == empty.count(b"\n")
