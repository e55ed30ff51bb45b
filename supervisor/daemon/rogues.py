"""Second processes for an agent ID: found by scanning, ended as a tree or reported, as configured.

The rule: what is a rogue is decided by :func:`supervisor.process.scan.find_rogues` from facts; each is told
of once, and one that is only reported, or does not die, counts as unresolved for as long as it is there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from supervisor.config import AgentSettings, Settings
from supervisor.core.conflicts import ConflictKind, Resolution
from supervisor.core.worker_state import WorkerState
from supervisor.daemon.development import SERVER_ID
from supervisor.events import (
    ConflictDetected,
    ConflictResolved,
    EventBus,
    InternalError,
    Loop,
    LoopOutcome,
    Reconciled,
    RogueFound,
)
from supervisor.process.ending import end_tree
from supervisor.process.handle import PosixProcess
from supervisor.process.procfs import Identity
from supervisor.process.scan import AgentFacts, Rogue, Supervisor, Verdict, find_rogues
from supervisor.process.snapshot import Scanner, live_states
from supervisor.reconcile.worker import Worker
from supervisor.reconcile.workers import WorkerReconciler

_KIND = ConflictKind.DUPLICATE_PROCESS


class RogueHunt:
    """Scans all processes now and then."""

    def __init__(self, workers: WorkerReconciler, bus: EventBus, settings: Callable[[], Settings]) -> None:
        self._workers = workers
        self._bus = bus
        self._settings = settings
        self._scanner = Scanner()
        self._told: frozenset[Rogue] = frozenset()

    @property
    def standing(self) -> tuple[Rogue, ...]:
        """Rogues that are there: only reported, or such as do not die."""
        return tuple(sorted(self._told, key=lambda rogue: rogue.start_ticks))

    async def scan(self) -> None:
        started = time.monotonic()
        outcome = LoopOutcome.OK
        try:
            rogues = self._look()
            self._told = frozenset([r for r in rogues if await self._is_there_after(r, started)])
        except OSError as error:
            outcome = LoopOutcome.FAILED
            self._bus.publish(InternalError.of("process scan", error))
        seconds = time.monotonic() - started
        self._bus.publish(Reconciled(loop=Loop.SCAN, outcome=outcome, seconds=seconds))

    def _look(self) -> tuple[Rogue, ...]:
        settings = self._settings()
        state = str(settings.paths.state)
        processes = self._scanner.snapshot()
        supervisor = Supervisor(
            state=state,
            livekit_url=settings.livekit.url,
            uid=os.getuid(),
            pid=os.getpid(),
            live_states=live_states(processes, state),
        )
        agents = [self._facts(agent) for agent in settings.agents]
        server = self._workers.get(SERVER_ID)
        if server is not None:
            agents.append(AgentFacts(SERVER_ID, None, Verdict.TERMINATE, *_process(server)))
        return find_rogues(processes, agents, supervisor)

    def _facts(self, agent: AgentSettings) -> AgentFacts:
        script = os.path.realpath(agent.script) if agent.script is not None else None
        worker = self._workers.get(agent.id)
        # One that still drains is stopped only when it has ended: a second process would be two until then.
        stopped = worker is not None and not worker.wanted and worker.state is WorkerState.STOPPED
        return AgentFacts(agent.id, script, Verdict(agent.rogue), *_process(worker), stopped=stopped)

    async def _is_there_after(self, rogue: Rogue, since: float) -> bool:
        """Report it, or end it if that can be done; one that stands is told of once."""
        resolution = await _dealt_with(rogue)
        stands = resolution is not Resolution.TERMINATED
        if not stands or rogue not in self._told:
            self._tell(rogue, resolution, since)
        return stands

    def _tell(self, rogue: Rogue, resolution: Resolution, since: float) -> None:
        self._bus.publish(
            RogueFound(agent_id=rogue.agent_id, pid=rogue.pid, action=resolution.value, reason=rogue.reason)
        )
        self._bus.publish(ConflictDetected(kind=_KIND, agent_id=rogue.agent_id))
        self._bus.publish(
            ConflictResolved(
                kind=_KIND,
                resolution=resolution,
                seconds=time.monotonic() - since,
                agent_id=rogue.agent_id,
            )
        )


async def _dealt_with(rogue: Rogue) -> Resolution:
    if rogue.verdict is Verdict.REPORT:
        return Resolution.REPORTED
    ended = await end_tree(Identity(rogue.pid, rogue.start_ticks))
    return Resolution.FAILED if ended.survivors else Resolution.TERMINATED


def _process(worker: Worker | None) -> tuple[int | None, str]:
    """Pid and launch of its running process."""
    handle = worker.handle if worker is not None else None
    if handle is None:
        return None, ""
    return handle.pid, handle.launch if isinstance(handle, PosixProcess) else ""
