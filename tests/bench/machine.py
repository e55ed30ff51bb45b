"""The machine that the figures come from, without anything that would name it."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from supervisor.livekit.dev_server import VERSION


def describe() -> dict[str, object]:
    return {
        "cores": os.cpu_count() or 0,
        "processor": _field("/proc/cpuinfo", "model name"),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30),
        "kernel": ".".join(platform.release().split("-")[0].split(".")[:2]),
        "python": platform.python_version(),
        "livekit_server": VERSION,
        "load_before": round(os.getloadavg()[0], 1),
    }


def text(machine: dict[str, object]) -> str:
    return (
        "{cores} cores ({processor}), {memory_gib} GiB, Linux {kernel}, Python {python}, "
        "livekit-server {livekit_server}; load average {load_before} at the start"
    ).format(**machine)


def _field(path: str, name: str) -> str:
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return "unknown"
