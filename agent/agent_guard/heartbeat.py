"""Proof that an event loop turns.

One rule: a beat is made by the loop it vouches for and by nothing else; a loop that is blocked, or a
process that is stopped, makes none.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

SAMPLES = 4
"""Looks at the loop's lateness per beat; the worst of them is reported."""


async def beat(interval: Callable[[], float], send: Callable[[float], None]) -> None:
    """For ever: call ``send`` with the worst lateness in seconds, once in ``interval()``."""
    while True:
        late = 0.0
        for _ in range(SAMPLES):
            pause = interval() / SAMPLES
            due = time.monotonic() + pause
            await asyncio.sleep(pause)
            late = max(late, time.monotonic() - due)
        send(round(max(late, 0.0), 3))
