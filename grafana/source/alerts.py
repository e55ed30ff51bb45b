"""Every alert, once.

The rules: a label is dropped with ``without`` and ``ignoring``, never kept by list, so that whatever labels
an operator adds to the targets stay on the alerts; an agent that was stopped on purpose is no alert; and
while LiveKit is away, that alone is told, not everything that follows from it.

``increase()`` extrapolates to the ends of its range: ten events are 10.3 where Prometheus looks every 15 s,
and 10.5 where it looks every 30 s, but never less than ten.  So *more than ten* is written ``> 10.9``.
"""

from __future__ import annotations

from grafana.source.model import Alert, AlertGroup

_STOPPED = 'unless ignoring (state) livekit_supervisor_agent_state{state="stopped"} == 1'
_LIVEKIT_AWAY = "unless ignoring (agent_id) livekit_supervisor_livekit_up == 0"

DAEMON = AlertGroup(
    "livekit-supervisor",
    "30s",
    (
        Alert(
            "LiveKitSupervisorDown",
            "critical",
            "1m",
            # A target that does not answer: known by the name of its job, or as one that was ours within the
            # hour.  Of targets that are gone, each new pod in Kubernetes leaves one: they count when no other
            # supervisor of their job is left.
            """\
up{job=~".*livekit-supervisor.*"} == 0
or (up == 0 and on (job, instance) present_over_time(livekit_supervisor_build_info[1h]))
or (
  group without (version) (present_over_time(livekit_supervisor_build_info[1h]))
  unless on (job) livekit_supervisor_build_info
)""",
            "The supervisor on {{ $labels.instance }} is down",
            "It does not answer Prometheus. Calls in progress go on, but nothing is put right any more: "
            "no worker is restarted and no second agent is removed.",
        ),
        Alert(
            "LiveKitSupervisorLoopStuck",
            "critical",
            "2m",
            # There is always an agent to look at, and a resync looks at each.  Rooms count when there are
            # some; that LiveKit tells nothing of one is no success, and no fault of the loop.
            """\
time() - livekit_supervisor_reconcile_last_success_timestamp_seconds{loop="scan"} > 60
or (
  time() - livekit_supervisor_reconcile_last_success_timestamp_seconds{loop="rooms"} > 300
  and ignoring (loop) sum without (state) (livekit_supervisor_rooms{state!="unknown"}) > 0
  and ignoring (loop) livekit_supervisor_livekit_up == 1
)
or time() - livekit_supervisor_reconcile_last_success_timestamp_seconds{loop="workers"} > 300""",
            "The {{ $labels.loop }} loop on {{ $labels.instance }} is stuck",
            "Its last successful turn was {{ $value | humanizeDuration }} ago, while there was something to "
            "do.",
        ),
        Alert(
            "LiveKitSupervisorRestarting",
            "warning",
            "0s",
            """\
changes(process_start_time_seconds[15m]) > 2
and on (job, instance) present_over_time(livekit_supervisor_build_info[15m])""",
            "The supervisor on {{ $labels.instance }} keeps restarting",
            "It was started {{ $value | humanize }} times in 15 minutes. Each start takes over the running "
            "workers, and while it is away nothing is put right.",
        ),
        Alert(
            "LiveKitSupervisorConfigReloadFailed",
            "warning",
            "1m",
            "livekit_supervisor_config_last_reload_success == 0",
            "The supervisor on {{ $labels.instance }} runs with an old configuration",
            "The last reload failed, so the configuration in use is not the one in the file. The next start "
            "may fail.",
        ),
        Alert(
            "LiveKitSupervisorStoreFailing",
            "warning",
            "0s",
            "increase(livekit_supervisor_store_errors_total[10m]) > 0",
            "The supervisor on {{ $labels.instance }} cannot use files of its state or logs",
            "In the last 10 minutes claims or history could not be read or written, or a command to stop an "
            "agent could not be written down, or a log could not be rotated. Calls are not affected; but a "
            "restart of the supervisor may know less, and logs may grow.",
        ),
    ),
)

AGENTS = AlertGroup(
    "livekit-supervisor-agents",
    "30s",
    (
        Alert(
            "LiveKitAgentDown",
            "critical",
            "1m",
            f"""\
livekit_supervisor_agent_up == 0
{_STOPPED}
{_LIVEKIT_AWAY}""",
            "Agent {{ $labels.agent_id }} on {{ $labels.instance }} has no process",
            "It is wanted, and its worker does not run. Rooms that wait for it stay silent.",
        ),
        Alert(
            "LiveKitAgentCrashLoop",
            "critical",
            "0s",
            """\
max without (state) (max_over_time(livekit_supervisor_agent_state{state="crash_loop"}[2m])) == 1
or
sum without (reason) (
  increase(
    livekit_supervisor_agent_restarts_total{reason=~"exit|signal|oom|hung|startup_timeout|memory_limit"}[10m]
  )
) > 4.9""",
            "Agent {{ $labels.agent_id }} on {{ $labels.instance }} keeps dying",
            "Its worker was restarted again and again in the last minutes. Every death interrupts its calls.",
        ),
        Alert(
            "LiveKitAgentNotReady",
            "warning",
            "3m",
            f"""\
livekit_supervisor_agent_ready == 0
unless ignoring (state) livekit_supervisor_agent_state{{state=~"stopped|draining|stopping"}} == 1
{_LIVEKIT_AWAY}""",
            "Agent {{ $labels.agent_id }} on {{ $labels.instance }} is not ready",
            "Its worker is not registered with LiveKit, although LiveKit answers. It takes no rooms.",
        ),
        Alert(
            "LiveKitAgentFull",
            "warning",
            "5m",
            "livekit_supervisor_claims >= (livekit_supervisor_agent_max_rooms > 0)",
            "Agent {{ $labels.agent_id }} on {{ $labels.instance }} is full",
            "It has {{ $value | humanize }} rooms, as many as `max_rooms` allows. Another room would stay "
            "silent.",
        ),
        Alert(
            "LiveKitAgentMemoryNearLimit",
            "warning",
            "5m",
            "livekit_supervisor_agent_resident_memory_bytes / (livekit_supervisor_agent_memory_limit_bytes > "
            "0) > 0.9",
            "Agent {{ $labels.agent_id }} on {{ $labels.instance }} is near its memory limit",
            "Its processes use {{ $value | humanizePercentage }} of `memory_limit`. Above it, the worker is "
            "drained and restarted.",
        ),
    ),
)

ROOMS = AlertGroup(
    "livekit-supervisor-rooms",
    "10s",
    (
        Alert(
            "LiveKitRoomWithoutAgent",
            "critical",
            "30s",
            'livekit_supervisor_conflicts_unresolved{kind="missing_agent"} > 0',
            "{{ $value | humanize }} rooms on {{ $labels.instance }} have a human and no agent",
            "Callers hear nothing. It was to be put right within seconds and was not.",
        ),
        Alert(
            "LiveKitConflictUnresolved",
            "warning",
            "1m",
            'livekit_supervisor_conflicts_unresolved{kind!~"missing_agent|duplicate_process"} > 0',
            "Unresolved on {{ $labels.instance }}: {{ $labels.kind }}",
            "{{ $value | humanize }} conflicts of this kind are there and stay. They are only reported, or "
            "could not be put right.",
        ),
        Alert(
            "LiveKitConflictRateHigh",
            "warning",
            "5m",
            "sum without (resolution) (increase(livekit_supervisor_conflicts_total[10m])) > 10.9",
            "Many conflicts on {{ $labels.instance }}: {{ $labels.kind }}",
            "About {{ $value | humanize }} in 10 minutes. Each was put right, but something keeps making "
            "them.",
        ),
        Alert(
            "LiveKitDuplicateAgent",
            "warning",
            "0s",
            "sum without (resolution) "
            '(increase(livekit_supervisor_conflicts_total{kind="duplicate_agent"}[10m])) > 0',
            "Two agents were in one room of {{ $labels.instance }}",
            "A second agent got into a room although the guard refuses such jobs: one of the same name runs "
            "outside of this supervisor.",
        ),
        Alert(
            "LiveKitDuplicateProcess",
            "warning",
            "0s",
            """\
sum without (resolution) (
  increase(livekit_supervisor_conflicts_total{kind="duplicate_process"}[10m])
) > 0
or livekit_supervisor_conflicts_unresolved{kind="duplicate_process"} > 0""",
            "A second process for an agent runs, or ran, on {{ $labels.instance }}",
            "Somebody, or something, starts workers beside the supervisor.",
        ),
        Alert(
            "LiveKitGhostAgents",
            "warning",
            "0s",
            "sum without (resolution) "
            '(increase(livekit_supervisor_conflicts_total{kind="ghost_agent"}[15m])) > 3.9',
            "Agents die in calls on {{ $labels.instance }}",
            "About {{ $value | humanize }} agents whose process had died were removed from rooms in 15 "
            "minutes. Each was an interrupted call.",
        ),
        Alert(
            "LiveKitHungJobs",
            "warning",
            "0s",
            'sum without (resolution) (increase(livekit_supervisor_conflicts_total{kind="hung_job"}[15m])) > '
            "0",
            "Jobs hang on {{ $labels.instance }}",
            "A job in a call stopped answering and was ended. Its caller heard nothing for as long as "
            "`heartbeat.timeout`.",
        ),
        Alert(
            "LiveKitSlowRecovery",
            "warning",
            "1m",
            "histogram_quantile(0.9, rate(livekit_supervisor_recovery_seconds_bucket[15m])) > 10",
            "Calls on {{ $labels.instance }} are silent for long after {{ $labels.cause }}",
            "In one of ten recoveries the caller waited {{ $value | humanizeDuration }} or more for an "
            "agent.",
        ),
        Alert(
            "LiveKitDispatchesFailing",
            "warning",
            "0s",
            """\
sum without (outcome) (
  increase(livekit_supervisor_dispatches_total{outcome=~"lost|failed"}[10m])
) > 2.9""",
            "Dispatches for {{ $labels.agent_id }} on {{ $labels.instance }} come to nothing",
            "About {{ $value | humanize }} dispatches in 10 minutes were lost or refused by LiveKit, so "
            "rooms waited longer for their agent.",
        ),
    ),
)

LIVEKIT = AlertGroup(
    "livekit-supervisor-livekit",
    "10s",
    (
        Alert(
            "LiveKitUnreachable",
            "critical",
            "30s",
            "livekit_supervisor_livekit_up == 0",
            "The supervisor on {{ $labels.instance }} does not reach LiveKit",
            "LiveKit does not answer, or refuses the key. Rooms are left alone until it does.",
        ),
        Alert(
            "LiveKitRequestsFailing",
            "warning",
            "2m",
            """\
sum without (method, outcome) (rate(livekit_supervisor_livekit_requests_total{outcome!~"ok|not_found"}[5m]))
/ sum without (method, outcome) (rate(livekit_supervisor_livekit_requests_total[5m]))
> 0.1
unless livekit_supervisor_livekit_up == 0""",
            "LiveKit fails some requests of {{ $labels.instance }}",
            "{{ $value | humanizePercentage }} of the calls to LiveKit's API fail, although it answers "
            "others.",
        ),
        Alert(
            "LiveKitWebhooksMissing",
            "warning",
            "5m",
            """\
sum without (agent_id, outcome) (
  increase(livekit_supervisor_claim_requests_total{outcome="granted"}[15m])
) > 0
unless
sum without (event, outcome) (
  increase(livekit_supervisor_webhooks_total{outcome=~"accepted|repeated"}[15m])
) > 0""",
            "No webhooks from LiveKit reach {{ $labels.instance }}",
            "Agents joined rooms in the last 15 minutes, and LiveKit told nothing of it. What goes wrong is "
            "found by the periodic look only, up to `rooms.resync` later.",
        ),
        Alert(
            "LiveKitWebhooksRefused",
            "warning",
            "0s",
            """\
sum without (event) (
  increase(livekit_supervisor_webhooks_total{outcome!~"accepted|repeated"}[10m])
) > 3.9""",
            "Webhooks to {{ $labels.instance }} are refused: {{ $labels.outcome }}",
            "About {{ $value | humanize }} in 10 minutes. LiveKit signs with a key that is not configured, "
            "the clocks differ, or somebody else sends.",
        ),
        Alert(
            "LiveKitWebhooksDropped",
            "warning",
            "0s",
            "increase(livekit_supervisor_webhooks_dropped_total[10m]) > 0",
            "LiveKit drops webhooks to {{ $labels.instance }}",
            "It says that it lost about {{ $value | humanize }} in 10 minutes, since they could not be "
            "delivered in time.",
        ),
    ),
)

GROUPS: tuple[AlertGroup, ...] = (DAEMON, AGENTS, ROOMS, LIVEKIT)
ALERTS: tuple[Alert, ...] = tuple(alert for group in GROUPS for alert in group.alerts)
