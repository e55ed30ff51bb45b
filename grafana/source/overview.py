"""The overview: is everybody who calls being talked to?

The rule: what is wrong is told at the top, in numbers that can be read from across the room; a phone shows
the panels one below the other in the same order.
"""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as dashboards

from grafana.source import panels
from grafana.source.panels import (
    ANY_IS_BAD,
    ANY_IS_ODD,
    BLUE,
    GREEN,
    GREY,
    NEUTRAL,
    ORANGE,
    RANGE,
    RATE,
    RED,
    UP_OR_DOWN,
    YELLOW,
    agents,
    columns,
    graph,
    number,
    of_column,
    process,
    query,
    series,
)

UID = "livekit-supervisor-overview"
TITLE = "LiveKit supervisor: overview"

STATES = {
    "stopped": GREY,
    "starting": YELLOW,
    "ready": GREEN,
    "draining": BLUE,
    "stopping": BLUE,
    "backoff": ORANGE,
    "crash_loop": RED,
}
STATE_TEXTS = panels.texts(
    **{f"_{n}": (state.replace("_", " "), color) for n, (state, color) in enumerate(STATES.items())}
)
STATE = "sum by (instance, agent_id) ({})".format(
    " or ".join(agents("agent_state", f'state="{state}"') + f" * {n}" for n, state in enumerate(STATES))
)
"""An agent's state as a number: only one of its series is 1."""


def build(docs: str) -> dashboards.Dashboard:
    about = "Agents, rooms and LiveKit, as the supervisor sees them."
    board = panels.empty_dashboard(UID, TITLE, about, docs)
    board = board.link(panels.to_dashboard("Conflicts", "livekit-supervisor-conflicts"))
    for add in (_at_a_glance, _rooms, _agents, _recovery, _livekit, _supervisor, _weeks):
        board = add(board)
    return board


def _at_a_glance(board: dashboards.Dashboard) -> dashboards.Dashboard:
    missing = series("conflicts_unresolved", 'kind="missing_agent"')
    others = series("conflicts_unresolved", 'kind!="missing_agent"')
    put_right = series("conflicts_total", 'resolution!~"reported|failed"')
    stopped = agents("agent_state", 'state="stopped"')
    wanted = f"sum(1 - {agents('agent_ready')}) - sum({stopped})"
    return (
        board.with_panel(
            number(
                "Silent rooms",
                "Rooms with a human and no agent, beyond the time that a start may take.",
                f"sum({missing})",
                thresholds=ANY_IS_BAD,
                alert="LiveKitRoomWithoutAgent",
            )
        )
        .with_panel(
            number(
                "Agents not ready",
                "Agents that should take rooms and do not; those stopped on purpose are left out.",
                wanted,
                thresholds=ANY_IS_BAD,
                alert="LiveKitAgentNotReady",
            )
        )
        .with_panel(
            number(
                "LiveKit",
                "Does LiveKit's API answer every supervisor?",
                f"min({series('livekit_up')})",
                thresholds=((None, RED), (1, GREEN)),
                unit="none",
                mapping=UP_OR_DOWN,
                alert="LiveKitUnreachable",
            )
        )
        .with_panel(
            number(
                "Supervisors down",
                "Supervisors that do not answer Prometheus now, and did in the time that is shown.",
                f"count(up{{{panels.OURS}}} == 0) or vector(0)",
                thresholds=ANY_IS_BAD,
                alert="LiveKitSupervisorDown",
            )
        )
        .with_panel(
            number(
                "Other conflicts now",
                "Conflicts that are there now, but for silent rooms.",
                f"sum({others})",
                thresholds=ANY_IS_ODD,
                alert="LiveKitConflictUnresolved",
            )
        )
        .with_panel(
            number(
                "Put right",
                "Conflicts that were put right in the time that is shown.",
                f"sum(increase({put_right}{RANGE}))",
                thresholds=NEUTRAL,
                alert="LiveKitConflictRateHigh",
            )
        )
    )


def _rooms(board: dashboards.Dashboard) -> dashboards.Dashboard:
    return (
        board.with_row(dashboards.Row("Rooms"))
        .with_panel(
            graph(
                "Rooms by state",
                "Healthy: a human and exactly one agent. Missing agent counts from the first moment, so a "
                "few that come and go are people who have just joined.",
                query(f"sum by (state) ({series('rooms')})", "{{state}}"),
                stacked=True,
                alert="LiveKitRoomWithoutAgent",
            )
        )
        .with_panel(
            graph(
                "Rooms by agent",
                "Rooms that jobs of the agent hold, and how many it may have at most.",
                query(f"sum by (agent_id) ({agents('claims')})", "{{agent_id}}"),
                query(f"sum by (agent_id) ({agents('agent_max_rooms')} > 0)", "{{agent_id}} at most"),
                alert="LiveKitAgentFull",
            )
        )
    )


def _agents(board: dashboards.Dashboard) -> dashboards.Dashboard:
    by_agent = "sum by (instance, agent_id)"
    coloured = {"custom.cellOptions": {"type": "color-text"}}
    return (
        board.with_row(dashboards.Row("Agents"))
        .with_panel(
            panels.timeline(
                "State of each agent",
                "What each agent's worker did, and when.",
                query(STATE, "{{agent_id}} on {{instance}}"),
                STATE_TEXTS,
                alert="LiveKitAgentCrashLoop",
            )
        )
        .with_panel(
            panels.rows(
                "Agents",
                "Each agent now; restarts in the time that is shown.",
                columns(STATE, "A"),
                columns(f"{by_agent} ({agents('agent_active_jobs')})", "B"),
                columns(f"{by_agent} ({agents('claims')})", "C"),
                columns(f"{by_agent} (increase({agents('agent_restarts_total')}{RANGE}))", "D"),
                columns(f"{by_agent} ({agents('agent_resident_memory_bytes')})", "E"),
                names={
                    "agent_id": "Agent",
                    "instance": "Supervisor",
                    "Value #A": "State",
                    "Value #B": "Jobs",
                    "Value #C": "Rooms",
                    "Value #D": "Restarts",
                    "Value #E": "Memory",
                },
                overrides=[
                    ("State", of_column(mappings=[STATE_TEXTS], **coloured)),
                    ("Restarts", of_column(decimals=0)),
                    ("Memory", of_column(unit="bytes")),
                ],
            )
        )
        .with_panel(
            graph(
                "Restarts",
                "Workers started in place of one that ended, by the reason of its end.",
                query(
                    f"sum by (agent_id, reason) (increase({agents('agent_restarts_total')}{RATE})) > 0",
                    "{{agent_id}}: {{reason}}",
                ),
                bars=True,
                alert="LiveKitAgentCrashLoop",
            )
        )
        .with_panel(
            graph(
                "Time to start",
                "From a worker's start until it is registered with LiveKit: nine of ten took less than this.",
                query(
                    "histogram_quantile(0.9, sum by (agent_id, le) "
                    f"(rate({agents('agent_start_duration_seconds_bucket')}{RATE})))",
                    "{{agent_id}}",
                ),
                unit="s",
                alert="LiveKitAgentNotReady",
            )
        )
        .with_panel(
            graph(
                "Memory",
                "Memory of each worker and its jobs, and the limit above which it is drained and restarted.",
                query(f"{by_agent} ({agents('agent_resident_memory_bytes')})", "{{agent_id}}"),
                query(f"{by_agent} ({agents('agent_memory_limit_bytes')} > 0)", "{{agent_id}} limit"),
                unit="bytes",
                alert="LiveKitAgentMemoryNearLimit",
            )
        )
        .with_panel(
            graph(
                "Processor",
                "Processor time of each worker and its jobs; 1 is one core.",
                query(f"{by_agent} (rate({agents('agent_cpu_seconds_total')}{RATE}))", "{{agent_id}}"),
            )
        )
        .with_panel(
            graph(
                "Drains",
                "Drains by how they ended: completed, or at the time-out with calls still going on.",
                query(
                    f"sum by (agent_id, outcome) (increase({agents('drains_total')}{RATE})) > 0",
                    "{{agent_id}}: {{outcome}}",
                ),
                bars=True,
            )
        )
        .with_panel(
            graph(
                "Job requests",
                "What LiveKit offered and what the guard answered; held is a second agent that was refused.",
                query(f"sum by (outcome) (increase({agents('claim_requests_total')}{RATE}))", "{{outcome}}"),
                bars=True,
                alert="LiveKitAgentFull",
            )
        )
    )


def _recovery(board: dashboards.Dashboard) -> dashboards.Dashboard:
    recovered = series("recovery_seconds_bucket")
    return (
        board.with_row(dashboards.Row("Recovery"))
        .with_panel(
            graph(
                "Silence of nine in ten",
                "How long a room with a human was without a live agent, by cause: nine of ten were shorter.",
                query(f"histogram_quantile(0.9, sum by (cause, le) (rate({recovered}{RATE})))", "{{cause}}"),
                unit="s",
                alert="LiveKitSlowRecovery",
            )
        )
        .with_panel(
            panels.density(
                "Silence, all of it",
                "How long rooms were without a live agent.",
                f"sum by (le) (increase({recovered}{RATE}))",
                alert="LiveKitSlowRecovery",
            )
        )
    )


def _livekit(board: dashboards.Dashboard) -> dashboards.Dashboard:
    requests, duration = series("livekit_requests_total"), series("livekit_request_duration_seconds_bucket")
    return (
        board.with_row(dashboards.Row("LiveKit"))
        .with_panel(
            graph(
                "Requests to LiveKit",
                "Calls to LiveKit's API by how they ended. Not found is no failure: rooms end while we ask.",
                query(f"sum by (outcome) (rate({requests}{RATE}))", "{{outcome}}"),
                unit="reqps",
                stacked=True,
                alert="LiveKitRequestsFailing",
            )
        )
        .with_panel(
            graph(
                "Time of requests",
                "How long LiveKit takes to answer: 99 of 100 were faster.",
                query(
                    f"histogram_quantile(0.99, sum by (method, le) (rate({duration}{RATE})))", "{{method}}"
                ),
                unit="s",
                alert="LiveKitUnreachable",
            )
        )
        .with_panel(
            graph(
                "Webhooks",
                "Webhooks by what came of them. Without any, problems are found by the periodic look only.",
                query(f"sum by (outcome) (rate({series('webhooks_total')}{RATE}))", "{{outcome}}"),
                query(f"sum(rate({series('webhooks_dropped_total')}{RATE}))", "dropped by LiveKit"),
                unit="reqps",
                alert="LiveKitWebhooksMissing",
            )
        )
        .with_panel(
            graph(
                "Since the last webhook",
                "How long ago LiveKit's last genuine webhook came; nothing is shown before the first.",
                query(
                    f"time() - ({series('webhook_last_received_timestamp_seconds')} > 0)",
                    "{{instance}}",
                ),
                unit="s",
                alert="LiveKitWebhooksMissing",
            )
        )
    )


def _supervisor(board: dashboards.Dashboard) -> dashboards.Dashboard:
    turned = series("reconcile_last_success_timestamp_seconds")
    return (
        board.with_row(dashboards.Row("The supervisor itself"))
        .with_panel(
            graph(
                "Since each loop's last turn",
                "Scans come every few seconds; agents and rooms are looked at by each resync.",
                query(f"time() - ({turned} > 0)", "{{loop}} on {{instance}}"),
                unit="s",
                alert="LiveKitSupervisorLoopStuck",
            )
        )
        .with_panel(
            graph(
                "Time of a turn",
                "99 of 100 turns of a loop were faster.",
                query(
                    "histogram_quantile(0.99, sum by (loop, le) "
                    f"(rate({series('reconcile_duration_seconds_bucket')}{RATE})))",
                    "{{loop}}",
                ),
                unit="s",
                alert="LiveKitSupervisorLoopStuck",
            )
        )
        .with_panel(
            graph(
                "Turns",
                "Turns of each loop by how they ended; requeued: tried again a little later.",
                query(
                    f"sum by (loop, outcome) (rate({series('reconcile_total')}{RATE})) > 0",
                    "{{loop}}: {{outcome}}",
                ),
                unit="ops",
            )
        )
        .with_panel(
            graph(
                "Failures of its own",
                "What failed with files of its state or logs, and failed reloads of the configuration.",
                query(
                    f"sum by (instance) (increase({series('store_errors_total')}{RATE}))",
                    "state or logs on {{instance}}",
                ),
                query(
                    "sum by (instance) (increase("
                    + series("config_reloads_total", 'outcome="failed"')
                    + f"{RATE}))",
                    "reload on {{instance}}",
                ),
                query(f"1 - {series('config_last_reload_success')}", "old configuration on {{instance}}"),
                bars=True,
                alert="LiveKitSupervisorStoreFailing",
            )
        )
        .with_panel(
            graph(
                "Its memory",
                "Resident memory of the supervisor's process.",
                query(process("resident_memory_bytes"), "{{instance}}"),
                unit="bytes",
            )
        )
        .with_panel(
            graph(
                "Its processor time and files",
                "Processor time of the supervisor's process, 1 is one core; and how much of its open files "
                "it uses.",
                query(f"rate({process('cpu_seconds_total')}{RATE})", "processor on {{instance}}"),
                query(f"{process('open_fds')} / {process('max_fds')}", "files on {{instance}}"),
                unit="percentunit",
            )
        )
        .with_panel(
            panels.rows(
                "Versions",
                "Which version runs where.",
                columns(f"sum by (instance, version) ({series('build_info')})", "A"),
                names={"instance": "Supervisor", "version": "Version", "Value": "Running"},
            )
        )
    )


def _weeks(board: dashboards.Dashboard) -> dashboards.Dashboard:
    served = f"job_instance:livekit_supervisor_rooms_served:ratio{{{panels.OURS}}}"
    slow = f"job_instance:livekit_supervisor_recovery_seconds:p90_1h{{{panels.OURS}}}"
    return (
        board.with_row(dashboards.Row("Over weeks (from the recording rules)"))
        .with_panel(
            graph(
                "Rooms served",
                "Of the rooms with a human, the share that had exactly their one agent.",
                query(f"avg by (instance) ({served})", "{{instance}}"),
                unit="percentunit",
                top=1,
                alert="LiveKitRoomWithoutAgent",
            )
        )
        .with_panel(
            graph(
                "Silence of nine in ten, by the hour",
                "How long a room with a human was without a live agent: nine of ten were shorter.",
                query(f"max by (instance) ({slow})", "{{instance}}"),
                unit="s",
                alert="LiveKitSlowRecovery",
            )
        )
    )
