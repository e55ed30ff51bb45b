"""Was it the kernel, short of memory, that killed a process?

One rule: a count of such kills from before is compared with one from after; without both, it is not known.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class OomCount:
    """Out-of-memory kills so far, in one process's control group and on the whole machine."""

    group_file: Path | None
    in_group: int | None
    on_machine: int | None

    @classmethod
    def for_process(cls, pid: int) -> OomCount:
        """To be taken while the process lives: what control group a dead one was in cannot be read."""
        file = _counter_file(pid)
        return cls(file, _read_counter(file), _read_counter(Path("/proc/vmstat")))

    def killed_since(self) -> bool | None:
        """Whether there was such a kill in its group since; None when the counters cannot tell.

        To be asked of a process that died of SIGKILL.  One that shares its group with others may be taken
        for the victim when another was.
        """
        on_machine = _read_counter(Path("/proc/vmstat"))
        if self.on_machine is not None and on_machine == self.on_machine:
            return False
        in_group = _read_counter(self.group_file)
        if self.in_group is None or in_group is None:
            return None
        return in_group > self.in_group


def _counter_file(pid: int) -> Path | None:
    """The file with the count, of control groups of version 2 or 1."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    candidates = [c for line in lines if line.count(":") >= 2 for c in _candidates(*line.split(":", 2))]
    return next((c for c in candidates if _read_counter(c) is not None), None)


def _candidates(hierarchy: str, controllers: str, group: str) -> list[Path]:
    below = group.lstrip("/")
    if hierarchy == "0":
        # The first where version 2 is all there is, the second where systemd keeps it beside version 1.
        return [root / below / "memory.events" for root in (_CGROUPS, _CGROUPS / "unified")]
    if "memory" in controllers.split(","):
        # In a container, the group's own folder may be what is mounted.
        root = _CGROUPS / "memory"
        return [root / below / "memory.oom_control", root / "memory.oom_control"]
    return []


def _read_counter(file: Path | None) -> int | None:
    if file is None:
        return None
    try:
        lines = file.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return None
    words = (line.split() for line in lines)
    return next((int(w[1]) for w in words if len(w) == 2 and w[0] == "oom_kill" and w[1].isdecimal()), None)
