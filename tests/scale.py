"""How often a scenario is played: once or at a small size in ``make test``, as asked for in ``make soak``.

``make soak`` sets ``SUPERVISOR_SOAK=1`` and runs what is marked ``soak``; the scenarios are the same.
"""

from __future__ import annotations

import os

SOAK = os.environ.get("SUPERVISOR_SOAK") == "1"


def times(test: int, soak: int) -> int:
    return soak if SOAK else test
