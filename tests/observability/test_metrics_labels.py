"""Every label value of every metric, and the test that moves its series by a real fault, or why none does.

The values are those of the design, written down once more: a new one needs a line here.
"""

from __future__ import annotations

import ast
import functools
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from supervisor.metrics.catalogue import PREFIX, Catalogue

TESTS = Path(__file__).parents[1]

EFFECTS = "observability/test_metrics_effects.py"
CLAIMS = "observability/test_metrics_effects_claims.py"
DESCRIPTORS = "observability/test_metrics_effects_descriptors.py"
ROOMS = "observability/test_metrics_effects_rooms.py"
FAILURES = "livekit/test_failures.py"
HEALING = "livekit/test_healing.py"
RESTARTS = "livekit/test_restarts.py"

NEVER = "never: "
MOMENTS = "moments only: "
"""These begin the reason why no test waits for a series."""

MOVED: dict[tuple[str, str], dict[str, str]] = {
    ("agent_state", "state"): {
        "stopped": f"{CLAIMS}::a_drain_is_answered_and_can_be_interrupted",
        "starting": f"{EFFECTS}::states_are_shown",
        "ready": f"{EFFECTS}::states_are_shown",
        "draining": f"{CLAIMS}::a_drain_is_answered_and_can_be_interrupted",
        "stopping": f"{CLAIMS}::a_worker_that_does_not_hear_is_stopping",
        "backoff": f"{EFFECTS}::states_are_shown",
        "crash_loop": f"{EFFECTS}::states_are_shown",
    },
    ("agent_restarts_total", "reason"): {
        "exit": f"{EFFECTS}::restarts_are_counted_by_reason",
        "signal": f"{EFFECTS}::restarts_are_counted_by_reason",
        "oom": "process/test_oom.py::test_a_whole_daemon_says_that_it_was_memory",
        "hung": f"{FAILURES}::test_a_stopped_worker_is_replaced",
        "startup_timeout": f"{EFFECTS}::test_workers",
        "memory_limit": f"{EFFECTS}::test_workers",
        "livekit_lost": f"{EFFECTS}::a_worker_waits_for_livekit",
        "config": f"{EFFECTS}::reloads_are_counted",
        "command": f"{EFFECTS}::restarts_are_counted_by_reason",
    },
    ("drains_total", "outcome"): {
        "completed": f"{EFFECTS}::drains_are_counted",
        "timeout": f"{ROOMS}::a_drain_runs_out_of_time",
        "interrupted": f"{CLAIMS}::a_drain_is_answered_and_can_be_interrupted",
    },
    ("rooms", "state"): {
        "healthy": f"{ROOMS}::a_room_gets_its_agent",
        "missing_agent": f"{EFFECTS}::a_room_that_cannot_be_read_is_tried_again",
        "conflict": f"{ROOMS}::an_agent_of_another_supervisor_is_reported",
        "empty": f"{CLAIMS}::requests_are_counted_by_their_answer",
        "unknown": f"{EFFECTS}::a_room_that_cannot_be_read_is_tried_again",
    },
    ("claim_requests_total", "outcome"): {
        "granted": f"{ROOMS}::a_room_gets_its_agent",
        "held": f"{ROOMS}::a_second_agent_is_refused",
        "full": f"{ROOMS}::an_agent_that_is_full_takes_no_other_room",
        "draining": f"{CLAIMS}::a_drain_is_answered_and_can_be_interrupted",
        "error": f"{CLAIMS}::a_job_that_was_there_first_takes_a_promised_room",
    },
    ("dispatches_total", "outcome"): {
        "created": f"{ROOMS}::a_room_gets_its_agent",
        "joined": f"{ROOMS}::a_room_gets_its_agent",
        "lost": f"{ROOMS}::an_agent_that_is_full_takes_no_other_room",
        "deleted": f"{ROOMS}::a_second_agent_is_refused",
        "failed": f"{EFFECTS}::a_dispatch_that_fails_is_counted",
    },
    ("recovery_seconds", "cause"): {
        "worker_death": f"{HEALING}::test_a_killed_worker_is_replaced_and_its_ghost_goes",
        "job_death": f"{FAILURES}::test_a_job_that_hangs_or_dies_is_replaced_and_costs_nobody_else",
        "hung_job": f"{FAILURES}::test_a_job_that_hangs_or_dies_is_replaced_and_costs_nobody_else",
        "livekit_restart": f"{RESTARTS}::test_an_agent_that_never_comes_back_is_waited_for_and_then_replaced",
        "lost_dispatch": f"{ROOMS}::dispatches_without_a_worker_are_lost",
        "other": f"{ROOMS}::a_room_gets_its_agent",
    },
    ("conflicts_total", "kind"): {
        "duplicate_process": f"{EFFECTS}::a_second_process_is_ended",
        "duplicate_request": f"{ROOMS}::a_second_agent_is_refused",
        "duplicate_dispatch": f"{ROOMS}::dispatches_without_a_worker_are_lost",
        "duplicate_agent": f"{ROOMS}::a_second_agent_of_ours_is_removed",
        "foreign_agent": f"{ROOMS}::a_foreign_agent_is_removed",
        "ghost_agent": f"{HEALING}::test_a_killed_worker_is_replaced_and_its_ghost_goes",
        "lost_dispatch": f"{ROOMS}::an_agent_that_is_full_takes_no_other_room",
        "missing_agent": f"{ROOMS}::a_room_gets_its_agent",
        "hung_job": f"{FAILURES}::test_a_job_that_hangs_or_dies_is_replaced_and_costs_nobody_else",
        "too_many_rooms": f"{CLAIMS}::an_agent_above_its_limit_is_told",
    },
    ("conflicts_total", "resolution"): {
        "rejected": f"{ROOMS}::a_second_agent_is_refused",
        "evicted": f"{ROOMS}::a_foreign_agent_is_removed",
        "terminated": f"{EFFECTS}::a_second_process_is_ended",
        "redispatched": f"{ROOMS}::a_room_gets_its_agent",
        "reported": f"{EFFECTS}::a_second_process_is_reported",
        "failed": f"{EFFECTS}::a_dispatch_that_fails_is_counted",
    },
    ("conflict_resolution_seconds", "kind"): {
        "duplicate_process": f"{EFFECTS}::a_second_process_is_ended",
        "duplicate_request": f"{ROOMS}::a_second_agent_is_refused",
        "duplicate_dispatch": f"{ROOMS}::dispatches_without_a_worker_are_lost",
        "duplicate_agent": f"{ROOMS}::a_second_agent_of_ours_is_removed",
        "foreign_agent": f"{ROOMS}::a_foreign_agent_is_removed",
        "ghost_agent": f"{HEALING}::test_a_killed_worker_is_replaced_and_its_ghost_goes",
        "lost_dispatch": f"{ROOMS}::an_agent_that_is_full_takes_no_other_room",
        "missing_agent": f"{ROOMS}::a_room_gets_its_agent",
        "hung_job": f"{FAILURES}::test_a_job_that_hangs_or_dies_is_replaced_and_costs_nobody_else",
        "too_many_rooms": NEVER + "it is only told of, and ends with a call of somebody's",
    },
    ("conflicts_unresolved", "kind"): {
        "duplicate_process": f"{EFFECTS}::a_second_process_is_reported",
        "duplicate_request": NEVER + "it is over when it is noticed",
        "duplicate_dispatch": MOMENTS + "0.3 s between two looks",
        "duplicate_agent": MOMENTS + "0.3 s between two looks",
        "foreign_agent": f"{ROOMS}::an_agent_of_another_supervisor_is_reported",
        "ghost_agent": MOMENTS + "removed in milliseconds",
        "lost_dispatch": MOMENTS + "deleted in milliseconds",
        "missing_agent": f"{ROOMS}::an_agent_that_is_full_takes_no_other_room",
        "hung_job": NEVER + "it is killed in the moment in which it is noticed",
        "too_many_rooms": f"{CLAIMS}::an_agent_above_its_limit_is_told",
    },
    ("reconcile_total", "loop"): {
        "workers": f"{EFFECTS}::a_dispatch_that_fails_is_counted",
        "rooms": f"{EFFECTS}::every_outcome_is_counted",
        "scan": f"{EFFECTS}::a_second_process_is_ended",
    },
    # Only rooms are requeued, and they fail by defects of ours alone: what cannot be read is no failure.
    ("reconcile_total", "outcome"): {
        "ok": f"{EFFECTS}::every_outcome_is_counted",
        "requeued": f"{EFFECTS}::a_room_that_cannot_be_read_is_tried_again",
        "failed": f"{DESCRIPTORS}::test_loops_fail_are_counted_and_go_on",
    },
    ("reconcile_duration_seconds", "loop"): {
        "workers": f"{EFFECTS}::a_dispatch_that_fails_is_counted",
        "rooms": f"{EFFECTS}::every_outcome_is_counted",
        "scan": f"{EFFECTS}::a_second_process_is_ended",
    },
    ("livekit_requests_total", "method"): {
        "list_rooms": f"{EFFECTS}::every_outcome_is_counted",
        "list_participants": f"{EFFECTS}::every_outcome_is_counted",
        "list_dispatches": f"{EFFECTS}::every_outcome_is_counted",
        "remove_participant": f"{ROOMS}::a_foreign_agent_is_removed",
        "create_dispatch": f"{ROOMS}::a_room_gets_its_agent",
        "delete_dispatch": f"{ROOMS}::a_second_agent_is_refused",
    },
    ("livekit_requests_total", "outcome"): {
        "ok": f"{EFFECTS}::every_outcome_is_counted",
        "timeout": f"{EFFECTS}::every_outcome_is_counted",
        "unauthorized": f"{EFFECTS}::every_outcome_is_counted",
        "not_found": f"{EFFECTS}::every_outcome_is_counted",
        "unavailable": f"{EFFECTS}::every_outcome_is_counted",
        "error": f"{EFFECTS}::every_outcome_is_counted",
    },
    ("livekit_request_duration_seconds", "method"): {
        "list_rooms": f"{EFFECTS}::every_outcome_is_counted",
        "list_participants": f"{EFFECTS}::a_dispatch_that_fails_is_counted",
        "list_dispatches": f"{EFFECTS}::a_dispatch_that_fails_is_counted",
        "remove_participant": f"{ROOMS}::a_foreign_agent_is_removed",
        "create_dispatch": f"{EFFECTS}::a_dispatch_that_fails_is_counted",
        "delete_dispatch": f"{ROOMS}::a_second_agent_is_refused",
    },
    ("webhooks_total", "event"): {
        **dict.fromkeys(
            (
                "room_started",
                "room_finished",
                "participant_joined",
                "participant_left",
                "participant_connection_aborted",
                "track_published",
                "track_unpublished",
                "egress_started",
                "egress_updated",
                "egress_ended",
                "ingress_started",
                "ingress_ended",
                "other",
            ),
            f"{EFFECTS}::test_webhooks",
        ),
    },
    ("webhooks_total", "outcome"): dict.fromkeys(
        ("accepted", "repeated", "unsigned", "malformed", "stale", "oversized"), f"{EFFECTS}::test_webhooks"
    ),
    ("config_reloads_total", "outcome"): dict.fromkeys(("ok", "failed"), f"{EFFECTS}::reloads_are_counted"),
}
"""Metric and label, value by value: the function that moves it."""

EVERY_WEBHOOK = "WEBHOOK_EVENTS"
"""Stands in a test for all of them."""

LINES = [(*key, value, place) for key, values in MOVED.items() for value, place in values.items()]
WITHOUT_LABELS = {"agent_id", "version", "le"}
"""No lists of values: of agents there are any, of versions is one, and the last is Prometheus's own."""


def labels_of_the_catalogue() -> dict[tuple[str, str], set[str]]:
    registry = CollectorRegistry()
    catalogue = Catalogue(registry)
    catalogue.add_agent("some-agent")
    kinds = {Counter: "_total", Gauge: "", Histogram: ""}
    ours = {
        next(iter(m.describe())).name: kinds[type(m)]
        for m in vars(catalogue).values()
        if isinstance(m, Counter | Gauge | Histogram)
    }
    found: dict[tuple[str, str], set[str]] = {}
    for family in registry.collect():
        name = family.name.removeprefix(PREFIX) + ours[family.name]
        for sample in family.samples:
            for label, value in sample.labels.items():
                if label not in WITHOUT_LABELS:
                    found.setdefault((name, label), set()).add(value)
    return found


def test_every_value_is_told_of() -> None:
    gauge_of_the_same = {("reconcile_last_success_timestamp_seconds", "loop")}  # set with the counter
    there = {k: v for k, v in labels_of_the_catalogue().items() if k not in gauge_of_the_same}
    assert {key: set(values) for key, values in MOVED.items()} == there


@functools.cache
def functions(path: str) -> dict[str, str]:
    """Their text, by name, of one file of tests; with what is given to them in ``parametrize``."""
    text = (TESTS / path).read_text()
    return {
        node.name: "\n".join(ast.unparse(part) for part in (*node.decorator_list, node))
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef)
    }


def test_the_test_that_moves_it_is_there() -> None:
    """It names the metric and the value; that it moves it, it proves itself."""
    faults = [
        f"{metric}: {value}: not by {place}"
        for metric, label, value, place in LINES
        if not place.startswith((NEVER, MOMENTS)) and not speaks_of(place, metric, label, value)
    ]
    assert faults == []


def speaks_of(place: str, metric: str, label: str, value: str) -> bool:
    path, _, name = place.partition("::")
    text = functions(path).get(name, "")
    named = any(f"'{metric}{suffix}'" in text for suffix in ("", "_count"))
    return named and (f"'{value}'" in text or (label == "event" and EVERY_WEBHOOK in text))
