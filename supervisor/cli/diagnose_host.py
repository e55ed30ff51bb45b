"""What the machine lets us have: descriptors, memory, disk, processors.

One rule: a number is judged by what is known to go wrong at it, and shown either way.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import psutil

from supervisor.cli.diagnose_findings import Area, Finding, Notes, Situation
from supervisor.cli.text import size

DESCRIPTORS = 1024
"""Below that a few hundred rooms with a webhook each can use them up."""

MEMORY_LEFT = 400 * 1_048_576
"""About what a worker and its first jobs take."""

DISK_LOW, DISK_OUT = 500 * 1_048_576, 20 * 1_048_576
LOAD_THRESHOLD = 0.7
"""A livekit-agents worker on a machine that is busier gets no jobs, and LiveKit says nothing about it."""

PROCESSOR_SECONDS = 0.5


def look(situation: Situation) -> list[Finding]:
    notes = Notes(Area.HOST)
    _tell_descriptors(situation, notes)
    _tell_memory(notes)
    _tell_disks(situation, notes)
    _tell_processors(notes)
    return notes.findings


def _tell_descriptors(situation: Situation, notes: Notes) -> None:
    if situation.status is None:
        return
    pid = situation.status["daemon"]["pid"]
    try:
        limit = _limit(pid)
        used = len(os.listdir(f"/proc/{pid}/fd"))
    except (OSError, ValueError):
        notes.unknown("the daemon's limits cannot be read", f"/proc/{pid}/limits")
        return
    evidence = f"{used} used of {limit}"
    fix = "# the unit, or: ulimit -n 65536\nLimitNOFILE=65536"
    if used > 0.8 * limit:
        notes.error("the daemon has nearly used up its file descriptors", evidence, fix=fix)
    elif limit < DESCRIPTORS:
        notes.warning("the daemon may open few files", evidence, fix=fix)
    else:
        notes.ok("the daemon has file descriptors enough", evidence)


def _limit(pid: int) -> int:
    for line in Path(f"/proc/{pid}/limits").read_text(encoding="ascii").splitlines():
        if line.startswith("Max open files"):
            value = line.split()[3]
            return 2**31 if value == "unlimited" else int(value)
    raise ValueError("no such limit")


def _tell_memory(notes: Notes) -> None:
    memory = psutil.virtual_memory()
    evidence = f"{size(memory.available)} of {size(memory.total)} are free"
    if memory.available < MEMORY_LEFT:
        notes.warning("there is no memory left for another worker", evidence, fix="ps aux --sort=-rss | head")
    else:
        notes.ok("there is memory enough", evidence)


def _tell_disks(situation: Situation, notes: Notes) -> None:
    if situation.installation is None:
        return
    places = situation.installation
    looked_at = set()
    for place in dict.fromkeys((places.state, places.logs)):
        try:
            path = _existing(place)
            free = shutil.disk_usage(path).free
        except OSError as error:
            notes.unknown("how full the disk is could not be seen", f"{place}: {error.strerror}")
            continue
        if path not in looked_at:
            _tell_disk(path, free, notes)
        looked_at.add(path)


def _tell_disk(path: Path, free: int, notes: Notes) -> None:
    evidence = f"{size(free)} are free where {path} is"
    if free < DISK_OUT:
        notes.error("the disk is full: history and logs are lost", evidence, fix=f"du -xh {path} | sort -h")
    elif free < DISK_LOW:
        notes.warning("the disk is nearly full", evidence, fix=f"du -xh {path}")
    else:
        notes.ok("there is room on the disk", evidence)


def _existing(path: Path) -> Path:
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _tell_processors(notes: Notes) -> None:
    busy = psutil.cpu_percent(PROCESSOR_SECONDS) / 100
    evidence = f"{busy:.0%} of {os.cpu_count() or 1} processors at this moment"
    if busy > LOAD_THRESHOLD:
        notes.warning(
            f"the machine is busy: above {LOAD_THRESHOLD:.0%} a worker gets no jobs, without a word",
            evidence,
            fix="# in the agent's script; agents.target_load in livekit.yaml must stay above it\n"
            "AgentServer(load_threshold=0.9)",
        )
    else:
        notes.ok("the processors have time for more jobs", evidence)
