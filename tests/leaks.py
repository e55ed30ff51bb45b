"""What a test must not leave behind: tasks, processes.

A process is ours when it descends from this test run, or when its environment carries one of the run's
marks: the run's name, or a path below the run's temporary directories (workers are told their state
directory, whatever became of their parents).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

RUN = f"lks-{secrets.token_hex(3)}"
"""The name of this test run: in the environment of everything it starts, and in its runtime directories."""

RUN_VARIABLE = "LIVEKIT_SUPERVISOR_TEST_RUN"

_HELPERS = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")


class Processes:
    """The processes of this test run that are alive."""

    def __init__(self) -> None:
        os.environ[RUN_VARIABLE] = RUN
        self._marks = {RUN.encode()}

    def mark(self, directory: Path) -> None:
        """Count every process as ours whose environment names something below ``directory``."""
        self._marks.add(os.fsencode(directory) + b"/")  # another run's may begin with the same letters

    def all(self) -> set[psutil.Process]:
        return self.marked() | self.descendants()

    def descendants(self) -> set[psutil.Process]:
        return {p for p in psutil.Process().children(recursive=True) if not _is_helper(p)}

    def marked(self) -> set[psutil.Process]:
        found = set()
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal() and int(entry.name) != os.getpid() and self._carries_mark(entry):
                with contextlib.suppress(psutil.Error):
                    process = psutil.Process(int(entry.name))
                    if not _is_helper(process):
                        found.add(process)
        return found

    def _carries_mark(self, entry: Path) -> bool:
        environment = _environment(entry)
        return any(mark in environment for mark in self._marks)


def _environment(entry: Path) -> bytes:
    """Empty for a kernel thread, and for a moment while a process executes another program."""
    try:
        environment = (entry / "environ").read_bytes()
        if not environment and os.readlink(entry / "exe"):
            time.sleep(0.005)
            environment = (entry / "environ").read_bytes()
    except OSError:
        return b""
    return environment


def _is_helper(process: psutil.Process) -> bool:
    """What multiprocessing keeps for a whole program, whichever test was the first to need it."""
    try:
        return any(helper in argument for argument in process.cmdline() for helper in _HELPERS)
    except psutil.Error:
        return False


def end(processes: Iterable[psutil.Process], grace: float) -> list[str]:
    """Give processes ``grace`` seconds to be gone, kill the others, and describe those."""
    _, alive = psutil.wait_procs(list(processes), timeout=grace)
    described = [_describe(process) for process in alive if _is_alive(process)]
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(alive, timeout=5)
    return described


def _is_alive(process: psutil.Process) -> bool:
    """A zombie of somebody else's is dead: whoever is its parent did not look yet."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _describe(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return f"{process.pid} {' '.join(process.cmdline())[:200]}"
    return str(process.pid)


async def leaked_tasks(grace: float) -> list[str]:
    """The tasks of this loop, but for the caller's, that do not end within ``grace`` seconds."""
    deadline = time.monotonic() + grace
    while True:
        tasks = [t for t in asyncio.all_tasks() if t is not asyncio.current_task() and not t.done()]
        if not tasks or time.monotonic() > deadline:
            return [repr(task) for task in tasks]
        await asyncio.wait(tasks, timeout=0.02)
