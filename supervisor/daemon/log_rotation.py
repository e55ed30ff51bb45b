"""Keeping workers' logs bounded, and telling where that fails.

One rule: a fault is told when it begins, and again now and then for as long as it stands.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable
from pathlib import Path

from supervisor.config import LogSettings
from supervisor.events import EventBus, StoreFailed
from supervisor.process.rotation import bound_removed, rotate
from supervisor.reconcile.worker import Worker

AGAIN_SECONDS = 300.0
"""The alert looks back over ten minutes: told once only, a fault would seem to have gone."""


class LogRotation:
    """Of all workers, one after the other."""

    def __init__(
        self,
        workers: Callable[[], Iterable[Worker]],
        bus: EventBus,
        settings: Callable[[], LogSettings],
        clock: Callable[[], float],
    ) -> None:
        self._workers = workers
        self._bus = bus
        self._settings = settings
        self._clock = clock
        self._told: dict[str, float] = {}
        """Faults that stand, and when each was told last."""

    async def look(self) -> None:
        log = self._settings()
        faults = set[str]()
        for worker in self._workers():
            pid = worker.handle.pid if worker.handle is not None else None
            path = Path(worker.spec.process.log_path)
            faults |= await asyncio.to_thread(_bound, path, pid, worker.spec.id, log)
        self._tell(faults)

    def _tell(self, faults: Iterable[str]) -> None:
        now = self._clock()
        before, self._told = self._told, {}
        for fault in faults:
            last = before.get(fault, -math.inf)
            if now - last >= AGAIN_SECONDS:
                last = now
                self._bus.publish(StoreFailed(operation="log rotation", error=fault))
            self._told[fault] = last


def _bound(path: Path, pid: int | None, agent_id: str, log: LogSettings) -> set[str]:
    """What is wrong with the log of the agent whose worker is ``pid``."""
    result = rotate(path, log.max_size, log.keep)
    faults = {result.error}
    if not result.error and not result.lossless:
        faults.add(f"{path}: this file system can only truncate a log, which may lose a line")
    if pid is not None:
        faults.add(bound_removed(path, pid, agent_id, log.max_size))
    return faults - {""}
