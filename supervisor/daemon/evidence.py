"""What else is known about a worker's death: was memory short, and what did it say last?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from supervisor.core.ports import ProcessSpec
from supervisor.process.host import PosixProcessHost

LAST_LINES = 5
LONGEST = 2_000


class DeathEvidence:
    """Implements :class:`supervisor.reconcile.workers.ExitEvidence`."""

    def __init__(self, host: PosixProcessHost, tail: Callable[[Path, int], list[str]]) -> None:
        self._host = host
        self._tail = tail

    def out_of_memory(self, spec: ProcessSpec) -> bool:
        return self._host.out_of_memory(spec)

    def last_output(self, spec: ProcessSpec) -> str:
        try:
            return "\n".join(self._tail(Path(spec.log_path), LAST_LINES))[-LONGEST:]
        except OSError:
            return ""
