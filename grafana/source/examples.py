"""For each alert, what it looks like when it is right to fire; for all, what it looks like when not.

Series are in promtool's notation, a sample every 10 s: ``0x60`` is 0 and sixty more of it, ``1+1x60`` rises
by 1 a sample, ``_`` is a sample that is missing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

SAMPLE_SECONDS = 10
JOB, INSTANCE, AGENT = "livekit-supervisor", "host-1:9105", "agent-a"
OTHER = "host-2:9105"
TARGET = {"job": JOB, "instance": INSTANCE}

UP = "1x360"
NONE = "0x360"


@dataclass(frozen=True, slots=True)
class Example:
    alert: str
    series: dict[str, str]
    holds_from: str
    """When its expression first has a result; it fires as long after that as its ``for`` says."""
    labels: dict[str, str] = field(default_factory=dict)
    """On the alert, beside job, instance and severity."""
    value: str = ""
    """As the texts show it."""


@dataclass(frozen=True, slots=True)
class Limit:
    """An alert on *more than* so many, which ``series`` counts at once: from 1000, since before its first
    event a counter is not extrapolated, to ``N``."""

    alert: str
    most: int
    """So many are no alert yet."""
    series: dict[str, str]

    def counting(self, n: int) -> dict[str, str]:
        return {series: values.replace("N", str(1000 + n)) for series, values in self.series.items()}


def name(metric: str, **labels: str) -> str:
    """``agent_up`` of the one target, with these labels."""
    prefix = "" if metric in ("up", "process_start_time_seconds") else "livekit_supervisor_"
    told = ", ".join(f'{key}="{value}"' for key, value in {**TARGET, **labels}.items())
    return f"{prefix}{metric}{{{told}}}"


def agent(metric: str, **labels: str) -> str:
    return name(metric, agent_id=AGENT, **labels)


OF_AGENT = {"agent_id": AGENT}

EXAMPLES: tuple[Example, ...] = (
    # --- the daemon ---
    Example(
        "LiveKitSupervisorDown",
        {
            name("up"): "1x60 0x300",
            name("build_info", version="1.0"): "1x60 stale",
        },
        "10m10s",
    ),
    Example(
        "LiveKitSupervisorDown",
        {
            # One of two, in a job that is not named after them.
            name("up", job="voice"): "1x60 0x300",
            name("build_info", job="voice", version="1.0"): "1x60 stale",
            name("up", job="voice", instance=OTHER): UP,
            name("build_info", job="voice", instance=OTHER, version="1.0"): UP,
            name("up", job="node", instance="host-1:9100"): NONE,
        },
        "10m10s",
        {"job": "voice"},
    ),
    Example(
        "LiveKitSupervisorDown",
        {
            # Not even a target any more, and nobody in its place; those of another job are no help.
            name("up"): "1x60 stale",
            name("build_info", version="1.0"): "1x60 stale",
            name("up", job="voice", instance=OTHER): UP,
            name("build_info", job="voice", instance=OTHER, version="1.0"): UP,
        },
        "10m10s",
    ),
    Example(
        "LiveKitSupervisorLoopStuck",
        {
            # At 5 min the scans stop: 60 s later that is long.
            name("reconcile_last_success_timestamp_seconds", loop="scan"): "0+10x30 300x330",
            name("reconcile_last_success_timestamp_seconds", loop="rooms"): NONE,  # there is no room
            name("rooms", state="healthy"): NONE,
            name("livekit_up"): UP,
        },
        "6m10s",
        {"loop": "scan"},
        "3m 10s",
    ),
    Example(
        "LiveKitSupervisorLoopStuck",
        {
            name("reconcile_last_success_timestamp_seconds", loop="scan"): "0+10x360",
            name("reconcile_last_success_timestamp_seconds", loop="rooms"): "0+10x30 300x330",
            name("rooms", state="healthy"): "2x360",
            name("livekit_up"): UP,
        },
        "10m10s",
        {"loop": "rooms"},
        "7m 10s",
    ),
    Example(
        "LiveKitSupervisorLoopStuck",
        {
            name("reconcile_last_success_timestamp_seconds", loop="scan"): "0+10x360",
            name("reconcile_last_success_timestamp_seconds", loop="workers"): "0+10x30 300x330",
        },
        "10m10s",
        {"loop": "workers"},
        "7m 10s",
    ),
    Example(
        "LiveKitSupervisorRestarting",
        {
            name("process_start_time_seconds"): "100x60 700x6 760x6 820x300",
            name("build_info", version="1.0"): UP,
        },
        "12m30s",
        value="3",
    ),
    Example(
        "LiveKitSupervisorConfigReloadFailed",
        {name("config_last_reload_success"): "1x60 0x300"},
        "10m10s",
    ),
    Example(
        "LiveKitSupervisorStoreFailing",
        {name("store_errors_total"): "0x60 1x300"},
        "10m10s",
    ),
    # --- agents ---
    Example(
        "LiveKitAgentDown",
        {
            agent("agent_up"): "1x60 0x300",
            agent("agent_state", state="stopped"): NONE,
            agent("agent_state", state="backoff"): "0x60 1x300",
            name("livekit_up"): UP,
        },
        "10m10s",
        OF_AGENT,
    ),
    Example(
        "LiveKitAgentCrashLoop",
        {agent("agent_state", state="crash_loop"): "0x60 1x2 0x300"},
        "10m10s",
        OF_AGENT,
    ),
    Example(
        "LiveKitAgentCrashLoop",
        {
            # Every 30 s a death, now by this reason and now by that: the fifth is at 12 min.
            agent("agent_restarts_total", reason="exit"): "0x59 1x2 1x2 2x2 2x2 3x300",
            agent("agent_restarts_total", reason="signal"): "0x59 0x2 1x2 1x2 2x2 2x300",
            agent("agent_restarts_total", reason="command"): "0+1x360",  # the operator's own are none
        },
        "12m",
        OF_AGENT,
    ),
    Example(
        "LiveKitAgentNotReady",
        {
            agent("agent_ready"): "1x60 0x300",
            agent("agent_state", state="draining"): NONE,
            agent("agent_state", state="stopping"): NONE,
            agent("agent_state", state="stopped"): NONE,
            name("livekit_up"): UP,
        },
        "10m10s",
        OF_AGENT,
    ),
    Example(
        "LiveKitAgentFull",
        {agent("claims"): "0+1x10 10x350", agent("agent_max_rooms"): "10x360"},
        "1m40s",
        OF_AGENT,
        "10",
    ),
    Example(
        "LiveKitAgentMemoryNearLimit",
        {
            agent("agent_resident_memory_bytes"): "500e6x60 950e6x300",
            agent("agent_memory_limit_bytes"): "1e9x360",
        },
        "10m10s",
        OF_AGENT,
        "95%",
    ),
    # --- rooms ---
    Example(
        "LiveKitRoomWithoutAgent",
        {name("conflicts_unresolved", kind="missing_agent"): "0x60 2x300"},
        "10m10s",
        {"kind": "missing_agent"},
        "2",
    ),
    Example(
        "LiveKitConflictUnresolved",
        {name("conflicts_unresolved", kind="foreign_agent"): "0x60 1x300"},
        "10m10s",
        {"kind": "foreign_agent"},
        "1",
    ),
    Example(
        "LiveKitConflictRateHigh",
        {
            name("conflicts_total", kind="duplicate_request", resolution="rejected"): "0x60 0+2x60 120x240",
            name("conflicts_total", kind="duplicate_request", resolution="reported"): NONE,
        },
        "11m10s",
        {"kind": "duplicate_request"},
        "72",
    ),
    Example(
        "LiveKitDuplicateAgent",
        {name("conflicts_total", kind="duplicate_agent", resolution="evicted"): "0x60 1x300"},
        "10m10s",
        {"kind": "duplicate_agent"},
    ),
    Example(
        "LiveKitDuplicateProcess",
        {
            name("conflicts_total", kind="duplicate_process", resolution="terminated"): "0x60 1x300",
            name("conflicts_unresolved", kind="duplicate_process"): NONE,
        },
        "10m10s",
        {"kind": "duplicate_process"},
    ),
    Example(
        "LiveKitDuplicateProcess",
        {
            # One that was only reported, before this daemon counted.
            name("conflicts_total", kind="duplicate_process", resolution="reported"): UP,
            name("conflicts_unresolved", kind="duplicate_process"): "0x60 1x300",
        },
        "10m10s",
        {"kind": "duplicate_process"},
    ),
    Example(
        "LiveKitGhostAgents",
        {name("conflicts_total", kind="ghost_agent", resolution="evicted"): "0x60 4x300"},
        "10m10s",
        {"kind": "ghost_agent"},
        "4",
    ),
    Example(
        "LiveKitHungJobs",
        {name("conflicts_total", kind="hung_job", resolution="terminated"): "0x60 1x300"},
        "10m10s",
        {"kind": "hung_job"},
    ),
    Example(
        "LiveKitSlowRecovery",
        {
            name("recovery_seconds_bucket", cause="worker_death", le="10.0"): "0x60 1x300",
            name("recovery_seconds_bucket", cause="worker_death", le="15.0"): "0x60 2x300",
            name("recovery_seconds_bucket", cause="worker_death", le="+Inf"): "0x60 2x300",
        },
        "10m10s",
        {"cause": "worker_death"},
        "14s",
    ),
    Example(
        "LiveKitDispatchesFailing",
        {
            agent("dispatches_total", outcome="lost"): "0x60 1x5 2x300",
            agent("dispatches_total", outcome="failed"): "0x60 1x300",
            agent("dispatches_total", outcome="joined"): "0+1x360",
        },
        "11m10s",
        OF_AGENT,
        "3",
    ),
    # --- LiveKit ---
    Example("LiveKitUnreachable", {name("livekit_up"): "1x60 0x300"}, "10m10s"),
    Example(
        "LiveKitRequestsFailing",
        {
            name("livekit_requests_total", method="list_rooms", outcome="ok"): "0+8x360",
            name("livekit_requests_total", method="list_participants", outcome="not_found"): "0+1x360",
            name("livekit_requests_total", method="create_dispatch", outcome="unavailable"): "0+3x360",
            name("livekit_up"): UP,
        },
        "10s",  # the first time that there are two samples
        value="25%",
    ),
    Example(
        "LiveKitWebhooksMissing",
        {
            agent("claim_requests_total", outcome="granted"): "0x60 0+1x300",
            name("webhooks_total", event="participant_joined", outcome="accepted"): NONE,
            # Those that were refused are another matter.
            name("webhooks_total", event="other", outcome="unsigned"): NONE,
        },
        "10m20s",
    ),
    Example(
        "LiveKitWebhooksRefused",
        {name("webhooks_total", event="other", outcome="unsigned"): "0x60 0+1x300"},
        "10m50s",
        {"outcome": "unsigned"},
        "4",
    ),
    Example(
        "LiveKitWebhooksDropped",
        {name("webhooks_dropped_total"): "0x60 5x300"},
        "10m10s",
        value="5",
    ),
)


LIMITS: tuple[Limit, ...] = (
    Limit(
        "LiveKitAgentCrashLoop",
        4,
        {
            agent("agent_restarts_total", reason="exit"): "1000x60 Nx300",
            agent("agent_restarts_total", reason="config"): "0+1x360",
        },
    ),
    Limit(
        "LiveKitConflictRateHigh",
        10,
        {name("conflicts_total", kind="duplicate_request", resolution="rejected"): "1000x60 Nx300"},
    ),
    Limit(
        "LiveKitGhostAgents",
        3,
        {name("conflicts_total", kind="ghost_agent", resolution="evicted"): "1000x60 Nx300"},
    ),
    Limit(
        "LiveKitDispatchesFailing",
        2,
        {
            agent("dispatches_total", outcome="failed"): "1000x60 Nx300",
            agent("dispatches_total", outcome="joined"): "0+1x360",
        },
    ),
    Limit(
        "LiveKitWebhooksRefused",
        3,
        {name("webhooks_total", event="other", outcome="unsigned"): "1000x60 Nx300"},
    ),
)
"""Each alert whose text says *more than*, of something that is counted."""


def rollout() -> dict[str, str]:
    """A new pod in Kubernetes: another address, another version, and nothing more of the one before."""
    return {
        name("up", pod="a"): "1x178 0 stale",
        name("build_info", pod="a", version="1.0"): "1x178 stale",
        name("up", pod="b", instance=OTHER): "_x181 0 0 1x176",
        name("build_info", pod="b", instance=OTHER, version="1.1"): "_x183 1x176",
    }


def healthy(*, restarted: bool = False) -> dict[str, str]:
    """An hour of a supervisor that does its work; a few things go wrong and are put right, as they do.

    ``restarted``: and in the middle of it, it is: gone for 20 s, then every counter starts anew.
    """
    gauges = {
        name("up"): 1.0,
        name("build_info", version="1.0"): 1,
        name("livekit_up"): 1,
        name("config_last_reload_success"): 1,
        name("rooms", state="healthy"): 20,
        name("rooms", state="missing_agent"): 1,  # one or another has always just begun
        name("rooms", state="conflict"): 0,
        name("rooms", state="empty"): 3,
        name("rooms", state="unknown"): 0,
        agent("agent_up"): 1,
        agent("agent_ready"): 1,
        agent("agent_state", state="ready"): 1,
        agent("claims"): 20,
        agent("agent_max_rooms"): 25,
        agent("agent_resident_memory_bytes"): 6e8,
        agent("agent_memory_limit_bytes"): 1e9,
        **{agent("agent_state", state=s): 0 for s in ("stopped", "draining", "stopping", "crash_loop")},
        **{
            name("conflicts_unresolved", kind=k): 0
            for k in ("missing_agent", "ghost_agent", "duplicate_process")
        },
        # Stopped by the operator: neither down nor unready.
        name("agent_up", agent_id="agent-b"): 0,
        name("agent_ready", agent_id="agent-b"): 0,
        name("agent_state", agent_id="agent-b", state="stopped"): 1,
        name("agent_max_rooms", agent_id="agent-b"): 0,
        name("claims", agent_id="agent-b"): 0,
        name("agent_resident_memory_bytes", agent_id="agent-b"): 0,
        name("agent_memory_limit_bytes", agent_id="agent-b"): 0,
    }
    # Per sample of 10 s.
    counters = {
        name("livekit_requests_total", method="list_rooms", outcome="ok"): 5.0,
        name("livekit_requests_total", method="list_participants", outcome="not_found"): 0.5,
        name("livekit_requests_total", method="create_dispatch", outcome="unavailable"): 0.01,
        name("webhooks_total", event="participant_joined", outcome="accepted"): 2,
        name("webhooks_total", event="other", outcome="unsigned"): 0.01,
        name("webhooks_dropped_total"): 0,
        name("store_errors_total"): 0,
        agent("claim_requests_total", outcome="granted"): 1,
        agent("agent_start_duration_seconds_count"): 0.005,
        agent("dispatches_total", outcome="joined"): 1,
        agent("dispatches_total", outcome="lost"): 0.01,
        agent("dispatches_total", outcome="failed"): 0.01,
        agent("agent_restarts_total", reason="signal"): 0.01,
        agent("agent_restarts_total", reason="command"): 0.1,
        name("conflicts_total", kind="duplicate_request", resolution="rejected"): 0.1,
        name("conflicts_total", kind="ghost_agent", resolution="evicted"): 0.01,
        **{
            name("conflicts_total", kind=kind, resolution="terminated"): 0
            for kind in ("duplicate_agent", "duplicate_process", "hung_job")
        },
        name("recovery_seconds_bucket", cause="worker_death", le="5.0"): 0.02,
        name("recovery_seconds_bucket", cause="worker_death", le="10.0"): 0.02,
        name("recovery_seconds_bucket", cause="worker_death", le="+Inf"): 0.02,
    }
    stamps = [
        name("reconcile_last_success_timestamp_seconds", loop=loop) for loop in ("scan", "rooms", "workers")
    ]
    if not restarted:
        return {
            **{series: f"{value:g}x360" for series, value in gauges.items()},
            **{series: f"0+{step:g}x360" for series, step in counters.items()},
            **dict.fromkeys(stamps, "0+10x360"),
            name("process_start_time_seconds"): "0x360",
        }
    up = name("up")
    return {
        **{series: f"{value:g}x180 _ _ {value:g}x176" for series, value in gauges.items() if series != up},
        **{series: f"0+{step:g}x180 _ _ 0+{step:g}x176" for series, step in counters.items()},
        **dict.fromkeys(stamps, "0+10x180 _ _ 1830+10x176"),
        up: "1x180 0 0 1x176",
        name("process_start_time_seconds"): "0x180 _ _ 1825x176",
    }
