"""Counters and histograms move when an event says so; gauges show what the daemon last said of the present.

The rule: a scrape reads no room.  What is counted over rooms (states, claims) is told as numbers, by
whoever keeps them; :meth:`Metrics.before_scrape` is for what is cheap to ask at that moment.

Events of an agent that is not configured (any more) are not counted under its ID: that label would be
without bound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from prometheus_client import CollectorRegistry, ProcessCollector, disable_created_metrics
from prometheus_client.metrics import MetricWrapperBase

from supervisor import __version__, events
from supervisor.core.conflicts import ConflictKind, Resolution
from supervisor.core.model import RoomState
from supervisor.core.worker_state import WorkerState
from supervisor.metrics.catalogue import Catalogue
from supervisor.metrics.exposition import Exposition

M = TypeVar("M", bound=MetricWrapperBase)

ProcessKey = tuple[int, float]
"""Pid and create time: one process, for ever."""

PROCESSES_REMEMBERED = 1_000

NOT_AN_END = frozenset({Resolution.REPORTED, Resolution.FAILED})
"""Outcomes after which the conflict is still there: no time of resolution."""

GENUINE = frozenset({events.WebhookOutcome.ACCEPTED, events.WebhookOutcome.REPEATED})


class _Children(dict[tuple[str, ...], M]):
    """The series of one metric by their labels, each looked up once: that costs as much as counting does."""

    def __init__(self, metric: M) -> None:
        super().__init__()
        self._metric = metric

    def __missing__(self, labels: tuple[str, ...]) -> M:
        series: M = self._metric.labels(*labels)
        self[labels] = series
        return series


class Metrics:
    """Subscribe :meth:`__call__` to the bus; hand :meth:`render` to the HTTP server."""

    def __init__(self, agent_ids: Iterable[str] = ()) -> None:
        # Series that nobody queries, a third more of them.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry(auto_describe=True)
        self._names = Catalogue(self.registry)
        self._exposition = Exposition(self.registry)
        self._requests = _Children(self._names.livekit_requests)
        self._request_seconds = _Children(self._names.livekit_duration)
        self._webhooks = _Children(self._names.webhooks)
        self._turns = _Children(self._names.reconcile)
        self._turn_seconds = _Children(self._names.reconcile_duration)
        self._last_turns = _Children(self._names.reconcile_last_success)
        self._agents: dict[str, dict[ProcessKey, float]] = {}
        """CPU seconds last seen of each process of each agent."""
        self._before_scrape: Callable[[], None] | None = None
        self._names.build_info.labels(__version__).set(1)
        self._names.config_last_reload_success.set(1)  # it was read to get here
        ProcessCollector(registry=self.registry)
        self.set_agents(agent_ids)

    def set_agents(self, agent_ids: Iterable[str]) -> None:
        """At start and after a reload: new ones begin with 0, those that are gone leave no series."""
        wanted = dict.fromkeys(agent_ids)
        for agent_id in [a for a in self._agents if a not in wanted]:
            del self._agents[agent_id]
            self._names.remove_agent(agent_id)
        for agent_id in [a for a in wanted if a not in self._agents]:
            self._agents[agent_id] = {}
            self._names.add_agent(agent_id)

    # --- the present, as the daemon tells it ---

    def before_scrape(self, refresh: Callable[[], None]) -> None:
        """Call ``refresh`` before each scrape; it says what follows, and does not look at single rooms."""
        self._before_scrape = refresh

    def agent(
        self,
        agent_id: str,
        *,
        up: bool | None = None,
        ready: bool | None = None,
        state: WorkerState | None = None,
        jobs: int | None = None,
        claims: int | None = None,
        max_rooms: int | None = None,
        memory_bytes: float | None = None,
        memory_limit_bytes: float | None = None,
    ) -> None:
        """What is known of an agent now; what is left out stays as it was."""
        if agent_id not in self._agents:
            return
        names = self._names
        gauges = (
            (names.agent_up, up),
            (names.agent_ready, ready),
            (names.agent_active_jobs, jobs),
            (names.claims, claims),
            (names.agent_max_rooms, max_rooms),
            (names.agent_memory, memory_bytes),
            (names.agent_memory_limit, memory_limit_bytes),
        )
        for gauge, value in gauges:
            if value is not None:
                gauge.labels(agent_id).set(value)
        if state is not None:
            for each in WorkerState:
                names.agent_state.labels(agent_id, each).set(each is state)

    def agent_cpu(
        self, agent_id: str, processes: Mapping[ProcessKey, float], *, adopted: bool = False
    ) -> None:
        """CPU seconds of every process in the agent's tree: what each has used since it was last seen.

        Of one that was ``adopted`` only what it uses from its first sight on: an earlier daemon has counted
        the rest, and weeks of it would look like the work of a moment.
        """
        if agent_id not in self._agents:
            return
        before = self._agents[agent_id]
        used = sum(
            max(0.0, seconds - before.get(key, seconds if adopted else 0.0))
            for key, seconds in processes.items()
        )
        # One that could not be read this time is remembered: it must not count anew when it is seen again.
        seen = {**before, **processes}
        self._agents[agent_id] = seen if len(seen) <= PROCESSES_REMEMBERED else dict(processes)
        self._names.agent_cpu.labels(agent_id).inc(used)

    def rooms(self, counts: Mapping[RoomState, int]) -> None:
        """How many rooms are in each state; a state left out has none."""
        for state in RoomState:
            self._names.rooms.labels(state).set(counts.get(state, 0))

    def unresolved(self, counts: Mapping[ConflictKind, int]) -> None:
        """How many conflicts of each kind there are now; a kind left out has none."""
        for kind in ConflictKind:
            self._names.conflicts_unresolved.labels(kind).set(counts.get(kind, 0))

    def livekit(self, up: bool) -> None:
        self._names.livekit_up.set(up)

    # --- the scrape ---

    def render(self, accept: str) -> tuple[bytes, str]:
        """Body and content type for this ``Accept`` header."""
        if self._before_scrape is not None:
            self._before_scrape()
        return self._exposition.render(accept)

    # --- what happened ---

    def __call__(self, event: events.Event) -> None:
        """The subscriber."""
        agent_id = getattr(event, "agent_id", None)
        known = agent_id in self._agents
        names = self._names
        match event:  # those that come by the thousand first
            case events.LiveKitRequest():
                self._requests[event.method, event.outcome].inc()
                self._request_seconds[event.method,].observe(event.seconds)
            case events.Reconciled():
                self._reconciled(event)
            case events.WebhookReceived():
                self._webhook(event)
            case events.WorkerRestarted() if known:
                names.agent_restarts.labels(agent_id, event.reason).inc()
            case events.WorkerReady() if known and event.seconds is not None:
                names.agent_start.labels(agent_id).observe(event.seconds)
            case events.DrainFinished() if known:
                names.drains.labels(agent_id, event.outcome).inc()
            case events.ClaimDecided() if known:
                names.claim_requests.labels(agent_id, event.outcome).inc()
            case events.DispatchChanged() if known:
                names.dispatches.labels(agent_id, event.outcome).inc()
            case events.ConflictResolved():
                self._conflict(event)
            case events.RoomRecovered():
                names.recovery.labels(event.cause).observe(event.seconds)
            case events.LiveKitUp() | events.LiveKitDown():
                self.livekit(isinstance(event, events.LiveKitUp))
            case events.ConfigReloaded():
                names.config_reloads.labels(event.outcome).inc()
                names.config_last_reload_success.set(event.outcome == "ok")
            case events.StoreFailed():
                names.store_errors.inc()
            case _:
                pass

    def _conflict(self, event: events.ConflictResolved) -> None:
        self._names.conflicts.labels(event.kind, event.resolution).inc()
        if event.resolution not in NOT_AN_END:
            self._names.conflict_resolution.labels(event.kind).observe(event.seconds)

    def _webhook(self, event: events.WebhookReceived) -> None:
        name = event.event if event.event in events.WEBHOOK_EVENTS else events.OTHER_EVENT
        self._webhooks[name, event.outcome].inc()
        self._names.webhooks_dropped.inc(max(0, event.dropped))
        if event.outcome in GENUINE:
            self._names.webhook_last.set_to_current_time()

    def _reconciled(self, event: events.Reconciled) -> None:
        self._turns[event.loop, event.outcome].inc()
        self._turn_seconds[event.loop,].observe(event.seconds)
        if event.outcome is events.LoopOutcome.OK:
            self._last_turns[event.loop,].set_to_current_time()
