"""What the kernel tells of processes, one file read per fact.

One rule: a process is its pid *and* its start time in clock ticks since boot.  A pid alone may be somebody
else's by the next line, and a wall-clock start time moves when the clock is set.

And a failed read is unknown, never absent: None means that the kernel says so, anything else is raised.
"""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")

_KERNEL_THREAD = 0x00200000  # PF_KTHREAD
_LARGEST = 4 * 1024 * 1024
"""An environment or command line beyond that is cut off; the kernel allows about 6 MiB for both."""


@dataclass(frozen=True, slots=True)
class Identity:
    """One process, for as long as the machine is up."""

    pid: int
    start_ticks: int


@dataclass(frozen=True, slots=True)
class Stat:
    """A process as ``/proc/<pid>/stat`` shows it."""

    pid: int
    name: str
    state: str
    ppid: int
    session: int
    threads: int
    start_ticks: int
    cpu_ticks: int
    """Its own, and those of children that it has waited for."""
    resident_bytes: int
    is_kernel_thread: bool
    program: tuple[str, ...]
    """Compares unequal after an ``exec``: where the kernel has put its text, arguments and environment."""
    wait_status: int
    """As ``wait`` would give it; only meaningful in a zombie, 0 where we may not see it."""

    @property
    def identity(self) -> Identity:
        return Identity(self.pid, self.start_ticks)

    @property
    def is_alive(self) -> bool:
        """A leader that has exited before its other threads looks like a zombie, and is none."""
        return self.state not in ("Z", "X") or self.threads > 1


def read_stat(pid: int) -> Stat | None:
    """None when there is no such process; raises ``OSError`` when that is not known."""
    data = read_bytes(f"/proc/{pid}/stat")
    return _parse_stat(data) if data else None


def read_table() -> dict[int, Stat]:
    """Every process there is, by pid: about 8 µs each."""
    stats = (read_stat(pid) for pid in pids())
    return {stat.pid: stat for stat in stats if stat is not None}


def pids() -> Iterable[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def _parse_stat(data: bytes) -> Stat:
    # The name is the program's own choice: it may hold spaces and parentheses.
    start, end = data.index(b"("), data.rindex(b")")
    fields = data[end + 2 :].decode("ascii").split()
    return Stat(
        pid=int(data[:start]),
        name=data[start + 1 : end].decode("utf-8", "backslashreplace"),
        state=fields[0],
        ppid=int(fields[1]),
        session=int(fields[3]),
        threads=int(fields[17]),
        start_ticks=int(fields[19]),
        cpu_ticks=sum(int(f) for f in fields[11:15]),
        resident_bytes=int(fields[21]) * PAGE_SIZE,
        is_kernel_thread=bool(int(fields[6]) & _KERNEL_THREAD),
        program=(*fields[23:26], *fields[45:49]),
        wait_status=int(fields[49]),
    )


def owner(pid: int) -> int | None:
    """The effective user; root for a process that may not be looked into.  None when it is gone."""
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except OSError as error:
        require_absence(error)
        return None


def environment(pid: int) -> bytes | None:
    """The environment it was started with, each variable ended by NUL; None when it cannot be read.

    Empty for a moment while the process executes another program.
    """
    return read_bytes(f"/proc/{pid}/environ")


def variable(environment: bytes, name: str) -> str | None:
    """One variable out of an environment as :func:`environment` gives it."""
    start = f"{name}=".encode()
    for entry in environment.split(b"\0"):
        if entry.startswith(start):
            return os.fsdecode(entry[len(start) :])
    return None


Marked = Callable[[bytes], bool]
"""Tells by its environment whether a process is meant."""


def carrying(marks: Iterable[tuple[str, str]]) -> Marked:
    """Whether an environment has all ``marks``; without any marks nobody is meant."""
    wanted = [b"\0" + os.fsencode(f"{name}={value}") + b"\0" for name, value in marks]

    def carries(environment: bytes) -> bool:
        block = b"\0" + environment + b"\0"
        return bool(wanted) and all(mark in block for mark in wanted)

    return carries


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


@functools.cache
def _boot_time() -> float:
    """Read once: the kernel derives it from the wall clock, so that setting the clock moves it."""
    return psutil.boot_time()


def create_time(start_ticks: int) -> float:
    """Unix seconds, as psutil tells it; the same value for as long as this daemon runs."""
    return start_ticks / TICKS_PER_SECOND + _boot_time()


def ancestors(pid: int, table: Mapping[int, Stat]) -> list[int]:
    """Its parent, its parent's parent, and so on up to the first process."""
    found: list[int] = []
    stat = table.get(pid)
    while stat is not None and stat.ppid in table and stat.ppid not in found:
        found.append(stat.ppid)
        stat = table[stat.ppid]
    return found


_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ESRCH, errno.EACCES, errno.EPERM})


def require_absence(error: OSError) -> None:
    """Raise what does not say that something is gone, or not ours to see: that we have no descriptor left."""
    if error.errno not in _ABSENT:
        raise error


def read_bytes(path: str) -> bytes | None:
    """A whole file of ``/proc``; None when it is gone or not ours to read.

    Raises ``OSError`` when that is not known.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        require_absence(error)
        return None
    try:
        chunks = []
        left = _LARGEST
        while left > 0 and (chunk := os.read(descriptor, min(left, 65536))):
            chunks.append(chunk)
            left -= len(chunk)
        return b"".join(chunks)
    except OSError as error:
        require_absence(error)
        return None
    finally:
        os.close(descriptor)
