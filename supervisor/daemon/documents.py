"""The documents of ``--json``, ``/api/*`` and the status page: what DESIGN fixes, version 1.

The rule: they show what is known in memory at this moment and ask nobody.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator

from supervisor import __version__
from supervisor.core.model import RoomState
from supervisor.core.worker_state import WorkerState
from supervisor.log import rfc3339
from supervisor.process.scan import Rogue, Verdict
from supervisor.reconcile.claimbook import ClaimBook
from supervisor.reconcile.health import LiveKitHealth
from supervisor.reconcile.rooms import RoomReconciler
from supervisor.reconcile.worker import Worker
from supervisor.reconcile.workers import WorkerReconciler

Document = dict[str, object]

PROBLEMS_SHOWN = 50
SEVERITIES = ("error", "warning", "info")
_FAULTY = frozenset({WorkerState.BACKOFF, WorkerState.CRASH_LOOP})


class Documents:
    """Builds them from the reconcilers' state."""

    def __init__(
        self,
        workers: WorkerReconciler,
        rooms: RoomReconciler,
        book: ClaimBook,
        health: LiveKitHealth,
        clock: Callable[[], float],
        *,
        mode: str,
        rogues: Callable[[], Iterable[Rogue]],
        notices: Callable[[], Iterable[tuple[str, str]]],
    ) -> None:
        self._workers = workers
        self._rooms = rooms
        self._book = book
        self._health = health
        self._clock = clock
        self._mode = mode
        self._rogues = rogues
        self._notices = notices
        self._since = time.time()

    def agents(self) -> tuple[Worker, ...]:
        return tuple(w for w in self._workers.all() if w.spec.is_agent)

    # --- status ---

    def status(self) -> Document:
        return {
            "version": 1,
            "daemon": {
                "version": __version__,
                "pid": os.getpid(),
                "since": rfc3339(self._since),
                "mode": self._mode,
            },
            "livekit": {
                "url": self._health.url,
                "up": self._health.is_up(),
                "error": self._health.error or None,
            },
            "agents": [self._agent(worker) for worker in self.agents()],
            "rooms": {state.value: count for state, count in self._rooms.counts().items()},
            "problems": self._problems(),
        }

    def summary(self) -> str:
        """The same in a line, for ``systemctl status``."""
        wanted = [worker for worker in self.agents() if worker.wanted]
        ready = sum(worker.state is WorkerState.READY for worker in wanted)
        rooms = self._rooms.counts()
        wrong = rooms[RoomState.MISSING_AGENT] + rooms[RoomState.CONFLICT]
        livekit = "LiveKit reached" if self._health.is_up() else "LiveKit not reached"
        told = f"{ready} of {len(wanted)} agents ready, {rooms[RoomState.HEALTHY]} rooms with their agent"
        return f"{told}, {wrong} rooms wrong; {livekit}" if wrong else f"{told}; {livekit}"

    def _agent(self, worker: Worker) -> Document:
        return {
            "id": worker.spec.id,
            "name": worker.name,
            "want": "running" if worker.wanted else "stopped",
            "state": worker.state.value,
            "reason": worker.reason or None,
            "pid": worker.handle.pid if worker.handle is not None else None,
            "since": self._wall(worker.since),
            "ready": worker.state is WorkerState.READY,
            "restarts": worker.restarts,
            "jobs": self._book.table.count(worker.spec.id),
            "memory_bytes": worker.memory_bytes,
        }

    def _problems(self) -> list[Document]:
        problems: list[Document] = []
        if self._health.up is False:
            problems.append(
                _problem(
                    "error",
                    f"LiveKit is not reached: {self._health.error}",
                    fix="livekit-supervisor check --online",
                )
            )
        problems.extend(p for worker in self.agents() for p in _worker_problems(worker))
        problems.extend(_second_process(rogue) for rogue in self._rogues())
        for view, _ in self._rooms.views():
            if len(problems) >= PROBLEMS_SHOWN:
                break
            if view.state in (RoomState.MISSING_AGENT, RoomState.CONFLICT):
                severity = "error" if view.state is RoomState.MISSING_AGENT else "warning"
                what = f"{view.state.value.replace('_', ' ')}: {view.reason}"
                problems.append(_problem(severity, what, room=view.name, fix="livekit-supervisor rooms"))
        problems.extend(_problem("info", text, agent_id=agent_id) for agent_id, text in self._notices())
        return sorted(problems, key=lambda p: SEVERITIES.index(str(p["severity"])))

    def _wall(self, monotonic: float) -> str:
        return rfc3339(time.time() - (self._clock() - monotonic))

    # --- readiness ---

    def readiness(self) -> tuple[bool, str]:
        if not self._health.is_up():
            return False, f"LiveKit is not reached: {self._health.error or 'not asked yet'}"
        waiting = [
            worker.spec.id
            for worker in self.agents()
            if worker.wanted and worker.state is not WorkerState.READY
        ]
        if waiting:
            return False, "not ready: " + ", ".join(waiting)
        return True, "ready"

    # --- rooms ---

    def rooms(self) -> Document:
        return {
            "version": 1,
            "rooms": [
                {
                    "name": view.name,
                    "sid": view.sid,
                    "state": view.state.value,
                    "reason": view.reason or None,
                    "humans": view.humans,
                    "agents": [
                        {
                            "identity": identity,
                            "agent_id": agent_id,
                            "holder": claim is not None and claim.identity == identity,
                        }
                        for identity, agent_id in view.agents
                    ],
                    "claim": None
                    if claim is None
                    else {"agent_id": claim.agent_id, "job_id": claim.job_id, "epoch": claim.epoch},
                }
                for view, claim in self._rooms.views()
            ],
        }


def _second_process(rogue: Rogue) -> Document:
    spared = rogue.verdict is Verdict.REPORT
    state = "is left alone" if spared else "does not die"
    return _problem(
        "error",
        f"a second process, {rogue.pid}, which {state}: {rogue.reason}",
        agent_id=rogue.agent_id,
        fix=f"kill {rogue.pid}" if spared else f"ps -o pid,stat,wchan:32,args -p {rogue.pid}",
    )


def _worker_problems(worker: Worker) -> Iterator[Document]:
    agent_id = worker.spec.id
    problem = _worker_problem(worker)
    if problem is not None:
        yield problem
    if worker.over_limit:
        yield _problem(
            "warning", f"more rooms than its max_rooms of {worker.spec.max_rooms}", agent_id=agent_id
        )


def _worker_problem(worker: Worker) -> Document | None:
    agent_id = worker.spec.id
    if worker.state in _FAULTY:
        return _problem(
            "error",
            f"{worker.state.value.replace('_', ' ')}: {worker.reason or 'its process ended'}",
            agent_id=agent_id,
            fix=f"livekit-supervisor logs {agent_id}",
        )
    if worker.handle is not None and worker.handle.lacking:
        return _problem("warning", worker.handle.lacking, agent_id=agent_id)
    if worker.wanted and worker.state is not WorkerState.READY:
        return _problem(
            "warning", f"{worker.state.value}: {worker.reason or 'not ready yet'}", agent_id=agent_id
        )
    return None


def _problem(
    severity: str,
    message: str,
    *,
    agent_id: str | None = None,
    room: str | None = None,
    fix: str | None = None,
) -> Document:
    return {"severity": severity, "agent_id": agent_id, "room": room, "message": message, "fix": fix}
