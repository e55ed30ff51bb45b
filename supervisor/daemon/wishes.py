"""Which agents the operator has stopped: an empty file each, so that a crash of the daemon keeps the wish.

The rule: a wish outlives a crash and a hand-over of the daemon; an orderly end of it forgets them all.
"""

from __future__ import annotations

import os
from pathlib import Path

from supervisor.events import EventBus, StoreFailed

_SUFFIX = ".stopped"


class StopWishes:
    """Implements :class:`supervisor.reconcile.workers.Wishes`."""

    def __init__(self, folder: Path, bus: EventBus) -> None:
        self._folder = folder
        self._bus = bus
        self._stopped: set[str] = set()

    def load(self) -> None:
        """What cannot be read is published, and nobody has been stopped then, as far as we know."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            names = os.listdir(self._folder)
        except OSError as error:
            self._bus.publish(StoreFailed(operation="stop wishes", error=str(error)))
            return
        self._stopped = {name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX)}

    def stopped(self) -> frozenset[str]:
        return frozenset(self._stopped)

    def set_stopped(self, agent_id: str, stopped: bool) -> None:
        """It holds from now on; that it could not be written down is published."""
        file = self._folder / f"{agent_id}{_SUFFIX}"
        try:
            if stopped:
                self._stopped.add(agent_id)
                file.touch(mode=0o600)
            else:
                self._stopped.discard(agent_id)
                file.unlink(missing_ok=True)
        except OSError as error:
            self._bus.publish(StoreFailed(operation="stop wish", error=str(error)))

    def forget_all(self) -> None:
        for agent_id in tuple(self._stopped):
            self.set_stopped(agent_id, False)
