"""What else is known about a worker's death: was memory short, and what did it say last?

One rule: what it said is cleaned of secrets here, before anybody is told of it.
"""

from __future__ import annotations

from collections.abc import Callable

from supervisor.core.ports import ProcessSpec
from supervisor.process.host import PosixProcessHost

LONGEST = 2_000


class DeathEvidence:
    """Implements :class:`supervisor.reconcile.workers.ExitEvidence`; tells what ``clean`` leaves."""

    def __init__(self, host: PosixProcessHost, clean: Callable[[str], str]) -> None:
        self._host = host
        self._clean = clean

    def out_of_memory(self, spec: ProcessSpec) -> bool:
        return self._host.out_of_memory(spec)

    def last_output(self, spec: ProcessSpec) -> str:
        try:
            # Cleaned before it is cut: the end of a secret that was cut in two is known to nobody.
            return self._clean(self._host.last_output(spec))[-LONGEST:]
        except OSError:
            return ""
