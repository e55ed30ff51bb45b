"""The conflicts: what went wrong, how it was put right, and how long that took."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as dashboards

from grafana.source import panels
from grafana.source.panels import (
    ANY_IS_BAD,
    ANY_IS_ODD,
    GREEN,
    NEUTRAL,
    ORANGE,
    RANGE,
    RATE,
    RED,
    agents,
    columns,
    density,
    graph,
    number,
    of_column,
    query,
    series,
)

UID = "livekit-supervisor-conflicts"
TITLE = "LiveKit supervisor: conflicts"

CONFLICTS = series("conflicts_total", 'kind=~"$kind"')
UNRESOLVED = series("conflicts_unresolved", 'kind=~"$kind"')
BUCKETS = series("conflict_resolution_seconds_bucket", 'kind=~"$kind"')
BAD_ENDS = series("conflicts_total", 'kind=~"$kind"', 'resolution=~"reported|failed"')


def build(docs: str) -> dashboards.Dashboard:
    about = "Conflicts of agents in rooms and of processes: kinds, resolutions, times."
    board = panels.empty_dashboard(UID, TITLE, about, docs)
    board = board.with_variable(
        panels.choice("kind", "Kind", f"label_values({series('conflicts_total')}, kind)", every=".*")
    )
    board = board.link(panels.to_dashboard("Overview", "livekit-supervisor-overview"))
    for add in (_at_a_glance, _what, _how_long, _prevented, _silence, _weeks):
        board = add(board)
    return board


def _at_a_glance(board: dashboards.Dashboard) -> dashboards.Dashboard:
    return (
        board.with_panel(
            number(
                "There now",
                "Conflicts that are there at this moment.",
                f"sum({UNRESOLVED})",
                thresholds=ANY_IS_BAD,
                alert="LiveKitConflictUnresolved",
                width=6,
            )
        )
        .with_panel(
            number(
                "Only reported, or failed",
                "Conflicts in the time that is shown that were not put right.",
                f"sum(increase({BAD_ENDS}{RANGE}))",
                thresholds=ANY_IS_ODD,
                alert="LiveKitConflictUnresolved",
                width=6,
            )
        )
        .with_panel(
            number(
                "In the time shown",
                "All conflicts in the time that is shown, those that were prevented among them.",
                f"sum(increase({CONFLICTS}{RANGE}))",
                thresholds=NEUTRAL,
                alert="LiveKitConflictRateHigh",
                width=6,
            )
        )
        .with_panel(
            number(
                "Time to put right",
                "Nine of ten conflicts were put right in less than this.",
                f"histogram_quantile(0.9, sum by (le) (rate({BUCKETS}{RANGE})))",
                thresholds=((None, GREEN), (2.5, ORANGE), (10, RED)),
                unit="s",
                decimals=1,
                alert="LiveKitSlowRecovery",
                width=6,
            )
        )
    )


def _what(board: dashboards.Dashboard) -> dashboards.Dashboard:
    return (
        board.with_row(dashboards.Row("What went wrong"))
        .with_panel(
            graph(
                "Conflicts by kind",
                "When each kind of conflict happened; the runbook says what each kind means.",
                query(f"sum by (kind) (increase({CONFLICTS}{RATE})) > 0", "{{kind}}"),
                bars=True,
                alert="LiveKitConflictRateHigh",
            )
        )
        .with_panel(
            graph(
                "Conflicts by what was done",
                "How they ended. Reported and failed ones are still there, or were left alone.",
                query(f"sum by (resolution) (increase({CONFLICTS}{RATE})) > 0", "{{resolution}}"),
                bars=True,
                alert="LiveKitConflictUnresolved",
            )
        )
        .with_panel(
            panels.rows(
                "Kinds and resolutions",
                "How many of each in the time that is shown.",
                columns(f"sum by (kind, resolution) (increase({CONFLICTS}{RANGE})) > 0", "A"),
                names={"kind": "Kind", "resolution": "What was done", "Value": "How many"},
                overrides=[("How many", of_column(decimals=0))],
                width=12,
            )
        )
        .with_panel(
            graph(
                "There at the time",
                "Conflicts that stood, by kind: a line that stays up is one that is not put right.",
                query(f"sum by (kind) ({UNRESOLVED})", "{{kind}}"),
                alert="LiveKitConflictUnresolved",
            )
        )
    )


def _how_long(board: dashboards.Dashboard) -> dashboards.Dashboard:
    return (
        board.with_row(dashboards.Row("How long it took"))
        .with_panel(
            graph(
                "Time to put right, nine in ten",
                "From detection to the end of a conflict, by kind: nine of ten were faster.",
                query(f"histogram_quantile(0.9, sum by (kind, le) (rate({BUCKETS}{RATE})))", "{{kind}}"),
                unit="s",
                alert="LiveKitSlowRecovery",
            )
        )
        .with_panel(
            density(
                "Time to put right, all of it",
                "From detection to the end of a conflict.",
                f"sum by (le) (increase({BUCKETS}{RATE}))",
            )
        )
    )


def _prevented(board: dashboards.Dashboard) -> dashboards.Dashboard:
    return (
        board.with_row(dashboards.Row("Before it comes to that"))
        .with_panel(
            graph(
                "Answers to job requests",
                "Held: a second agent that was refused before it joined.",
                query(
                    f"sum by (agent_id, outcome) (increase({agents('claim_requests_total')}{RATE})) > 0",
                    "{{agent_id}}: {{outcome}}",
                ),
                bars=True,
                alert="LiveKitAgentFull",
            )
        )
        .with_panel(
            graph(
                "Dispatches",
                "What became of dispatches. Created and joined belong together; lost brought no agent.",
                query(
                    f"sum by (agent_id, outcome) (increase({agents('dispatches_total')}{RATE})) > 0",
                    "{{agent_id}}: {{outcome}}",
                ),
                bars=True,
                alert="LiveKitDispatchesFailing",
            )
        )
    )


def _silence(board: dashboards.Dashboard) -> dashboards.Dashboard:
    return (
        board.with_row(dashboards.Row("What callers noticed"))
        .with_panel(
            graph(
                "Recoveries by cause",
                "Rooms with a human that had lost their agent and have one again.",
                query(
                    f"sum by (cause) (increase({series('recovery_seconds_count')}{RATE})) > 0", "{{cause}}"
                ),
                bars=True,
                alert="LiveKitSlowRecovery",
            )
        )
        .with_panel(
            density(
                "Silence",
                "How long rooms with a human were without a live agent.",
                f"sum by (le) (increase({series('recovery_seconds_bucket')}{RATE}))",
                alert="LiveKitSlowRecovery",
            )
        )
    )


def _weeks(board: dashboards.Dashboard) -> dashboards.Dashboard:
    recorded = f'job_instance_kind:livekit_supervisor_conflicts:increase5m{{{panels.OURS}, kind=~"$kind"}}'
    return board.with_row(dashboards.Row("Over weeks (from the recording rules)")).with_panel(
        graph(
            "Conflicts in five minutes",
            "The same count, cheap over months.",
            query(f"sum by (kind) ({recorded})", "{{kind}}"),
            width=24,
            alert="LiveKitConflictRateHigh",
        )
    )
