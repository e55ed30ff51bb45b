"""What else is known about a worker's death: was memory short, and what did it say last?"""

from __future__ import annotations

from supervisor.core.ports import ProcessSpec
from supervisor.process.host import PosixProcessHost

LONGEST = 2_000


class DeathEvidence:
    """Implements :class:`supervisor.reconcile.workers.ExitEvidence`."""

    def __init__(self, host: PosixProcessHost) -> None:
        self._host = host

    def out_of_memory(self, spec: ProcessSpec) -> bool:
        return self._host.out_of_memory(spec)

    def last_output(self, spec: ProcessSpec) -> str:
        try:
            return self._host.last_output(spec)[-LONGEST:]
        except OSError:
            return ""
