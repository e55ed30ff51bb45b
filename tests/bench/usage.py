"""What one process uses: processor time to the nanosecond, and memory with what is shared divided up."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

from supervisor.process.tree import proportional_memory

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Memory:
    pss: float
    rss: float
    """Both in MiB."""


def cpu_seconds(pid: int) -> float:
    """Of all its threads that live; the daemons measured here end none."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def memory(pid: int) -> Memory:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return Memory(proportional_memory([pid]) / MIB, pages * 4096 / MIB)


async def share_of_core(pid: int, seconds: float) -> float:
    """How much of one core it uses in the next seconds."""
    before, started = cpu_seconds(pid), time.monotonic()
    await asyncio.sleep(seconds)
    return (cpu_seconds(pid) - before) / (time.monotonic() - started)
