"""The names, labels and buckets, in one place.

The rule: no room, participant or pid is a label, and every series whose labels are known exists from the
start with 0, so that ``increase()`` sees the first event.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from supervisor import __version__
from supervisor.core.conflicts import ConflictKind, Resolution
from supervisor.core.model import ClaimOutcome, RecoveryCause, RoomState
from supervisor.core.ports import RequestOutcome
from supervisor.core.worker_state import WorkerState
from supervisor.events import (
    OTHER_EVENT,
    WEBHOOK_EVENTS,
    DispatchOutcome,
    Loop,
    LoopOutcome,
    RestartReason,
    WebhookOutcome,
)

M = TypeVar("M", bound=MetricWrapperBase)

PREFIX = "livekit_supervisor_"

DRAIN_OUTCOMES = ("completed", "timeout", "interrupted")
RELOAD_OUTCOMES = ("ok", "failed")
METHODS = (
    "list_rooms",
    "list_participants",
    "list_dispatches",
    "remove_participant",
    "create_dispatch",
    "delete_dispatch",
)

# A removal takes 5 ms, a request 1 ms; the slowest of either is a time-out of seconds.
QUICK = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
# Half a second with a warm worker; 3 to 5 s with a new one; a ghost alone lasts 21 s.
RECOVERY = (0.1, 0.25, 0.5, 1, 2, 3, 5, 7.5, 10, 15, 20, 30, 60, 120)
START = (0.5, 1, 2, 3, 4, 5, 7.5, 10, 15, 20, 30, 60)
RECONCILE = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)


Labels = Mapping[str, Iterable[str]]
"""Each label's name and its known values."""

AGENTS: tuple[str, ...] = ()
"""The known values of ``agent_id``: none, until :meth:`Catalogue.add_agent`."""


class Catalogue:
    """Creates every series; holds no logic."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._of_agents: list[tuple[MetricWrapperBase, Labels]] = []
        self._agents()
        self._rooms()
        self._livekit()
        self._self()

    def _agents(self) -> None:
        counter, gauge = self._counter, self._gauge
        self.agent_up = gauge("agent_up", "1 while the agent's worker process lives.", agent_id=AGENTS)
        self.agent_ready = gauge(
            "agent_ready", "1 while its worker is registered with LiveKit and takes rooms.", agent_id=AGENTS
        )
        self.agent_state = gauge(
            "agent_state", "1 for the state that the agent is in.", agent_id=AGENTS, state=WorkerState
        )
        self.agent_restarts = counter(
            "agent_restarts_total",
            "Workers started in place of one that ended.",
            agent_id=AGENTS,
            reason=RestartReason,
        )
        self.agent_active_jobs = gauge(
            "agent_active_jobs", "Jobs running in the agent's worker.", agent_id=AGENTS
        )
        self.agent_max_rooms = gauge(
            "agent_max_rooms", "Configured limit of rooms at once; 0 is none.", agent_id=AGENTS
        )
        self.agent_memory = gauge(
            "agent_resident_memory_bytes", "Resident memory of the worker's whole tree.", agent_id=AGENTS
        )
        self.agent_memory_limit = gauge(
            "agent_memory_limit_bytes", "Configured limit of that memory; 0 is none.", agent_id=AGENTS
        )
        self.agent_cpu = counter(
            "agent_cpu_seconds_total", "CPU time used by the worker's whole tree.", agent_id=AGENTS
        )
        self.agent_start = self._histogram(
            "agent_start_duration_seconds",
            "From a worker's start until it is registered.",
            START,
            agent_id=AGENTS,
        )
        self.drains = counter(
            "drains_total", "Drains by how they ended.", agent_id=AGENTS, outcome=DRAIN_OUTCOMES
        )
        self.claims = gauge("claims", "Rooms held by jobs of the agent.", agent_id=AGENTS)
        self.claim_requests = counter(
            "claim_requests_total",
            "Job requests by the answer they got.",
            agent_id=AGENTS,
            outcome=ClaimOutcome,
        )
        self.dispatches = counter(
            "dispatches_total",
            "Dispatches by what became of them.",
            agent_id=AGENTS,
            outcome=DispatchOutcome,
        )

    def _rooms(self) -> None:
        self.conflicts = self._counter(
            "conflicts_total",
            "Conflicts by kind and by what was done about them.",
            kind=ConflictKind,
            resolution=Resolution,
        )
        self.conflicts_unresolved = self._gauge(
            "conflicts_unresolved", "Conflicts that are there now.", kind=ConflictKind
        )
        self.conflict_resolution = self._histogram(
            "conflict_resolution_seconds", "From a conflict's detection to its end.", QUICK, kind=ConflictKind
        )
        self.recovery = self._histogram(
            "recovery_seconds",
            "A room with a human, from no live agent to one.",
            RECOVERY,
            cause=RecoveryCause,
        )
        self.rooms = self._gauge("rooms", "Rooms by state.", state=RoomState)

    def _livekit(self) -> None:
        self.livekit_up = self._gauge("livekit_up", "1 while LiveKit's API answers.")
        self.livekit_duration = self._histogram(
            "livekit_request_duration_seconds", "Calls to LiveKit's API.", QUICK, method=METHODS
        )
        self.livekit_requests = self._counter(
            "livekit_requests_total",
            "Calls to LiveKit's API by how they ended.",
            method=METHODS,
            outcome=RequestOutcome,
        )
        self.webhooks = self._counter(
            "webhooks_total",
            "Webhooks by event and answer.",
            event=(*WEBHOOK_EVENTS, OTHER_EVENT),
            outcome=WebhookOutcome,
        )
        self.webhooks_dropped = self._counter(
            "webhooks_dropped_total", "Events that LiveKit says it dropped."
        )
        self.webhook_last = self._gauge(
            "webhook_last_received_timestamp_seconds", "When LiveKit's last genuine webhook came; 0 is never."
        )

    def _self(self) -> None:
        self.build_info = self._gauge("build_info", "Version of the supervisor.", version=(__version__,))
        self.reconcile_duration = self._histogram(
            "reconcile_duration_seconds", "One turn of a loop.", RECONCILE, loop=Loop
        )
        self.reconcile = self._counter(
            "reconcile_total", "Turns of a loop by how they ended.", loop=Loop, outcome=LoopOutcome
        )
        self.reconcile_last_success = self._gauge(
            "reconcile_last_success_timestamp_seconds",
            "When a loop's last turn succeeded; 0 is never.",
            loop=Loop,
        )
        self.config_reloads = self._counter(
            "config_reloads_total", "Reloads of the configuration.", outcome=RELOAD_OUTCOMES
        )
        self.config_last_reload_success = self._gauge(
            "config_last_reload_success", "1 while the configuration in use is the one in the file."
        )
        self.store_errors = self._counter(
            "store_errors_total", "Failed reads and writes of the store, and of files beside it."
        )

    # --- agents come and go ---

    def add_agent(self, agent_id: str) -> None:
        for metric, labels in self._of_agents:
            for values in _combinations({**labels, "agent_id": (agent_id,)}):
                metric.labels(**values)

    def remove_agent(self, agent_id: str) -> None:
        for metric, labels in self._of_agents:
            for values in _combinations({**labels, "agent_id": (agent_id,)}):
                metric.remove(*values.values())

    # --- making them ---

    def _counter(self, name: str, text: str, **labels: Iterable[str]) -> Counter:
        return self._filled(Counter(PREFIX + name, text, list(labels), registry=self._registry), labels)

    def _gauge(self, name: str, text: str, **labels: Iterable[str]) -> Gauge:
        return self._filled(Gauge(PREFIX + name, text, list(labels), registry=self._registry), labels)

    def _histogram(
        self, name: str, text: str, buckets: Sequence[float], **labels: Iterable[str]
    ) -> Histogram:
        histogram = Histogram(PREFIX + name, text, list(labels), registry=self._registry, buckets=buckets)
        return self._filled(histogram, labels)

    def _filled(self, metric: M, labels: Labels) -> M:
        """Every series whose labels are known, at 0."""
        if "agent_id" in labels:
            self._of_agents.append((metric, labels))
        elif labels:
            for values in _combinations(labels):
                metric.labels(**values)
        return metric


def _combinations(labels: Labels) -> Iterator[dict[str, str]]:
    for values in itertools.product(*labels.values()):
        yield dict(zip(labels, values, strict=True))
