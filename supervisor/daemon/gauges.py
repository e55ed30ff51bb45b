"""What metrics show of the present, told once before each scrape: constant in the number of rooms."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from supervisor.core.conflicts import ConflictKind
from supervisor.core.worker_state import WorkerState
from supervisor.metrics import Metrics
from supervisor.reconcile.claimbook import ClaimBook
from supervisor.reconcile.rooms import RoomReconciler
from supervisor.reconcile.workers import WorkerReconciler


class Gauges:
    """Reads the reconcilers' counters into the metrics."""

    def __init__(
        self,
        metrics: Metrics,
        workers: WorkerReconciler,
        rooms: RoomReconciler,
        book: ClaimBook,
        rogues: Callable[[], int],
    ) -> None:
        self._metrics = metrics
        self._workers = workers
        self._rooms = rooms
        self._book = book
        self._rogues = rogues
        metrics.before_scrape(self.refresh)

    def refresh(self) -> None:
        for worker in self._workers.all():
            self._metrics.agent(
                worker.spec.id,
                up=worker.handle is not None,
                ready=worker.state is WorkerState.READY,
                state=worker.state,
                jobs=self._book.job_count(worker.spec.id),
                claims=self._book.table.count(worker.spec.id),
                max_rooms=worker.spec.max_rooms,
                memory_bytes=worker.memory_bytes,
                memory_limit_bytes=worker.spec.policy.memory_limit,
            )
        self._metrics.rooms(self._rooms.counts())
        unresolved = {
            **self._rooms.unresolved(),
            ConflictKind.DUPLICATE_PROCESS: self._rogues(),
            ConflictKind.TOO_MANY_ROOMS: sum(worker.over_limit for worker in self._workers.all()),
        }
        self._metrics.unresolved(unresolved)

    def cpu(self, agent_id: str, processes: Mapping[tuple[int, float], float], *, adopted: bool) -> None:
        self._metrics.agent_cpu(agent_id, processes, adopted=adopted)
