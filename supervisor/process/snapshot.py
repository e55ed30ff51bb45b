"""The facts that rogues are judged by, read with psutil.

One rule: a program's facts are read once.  A scan every few seconds reads one line per process, and asks
psutil only about those that are new or have executed another program since.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import psutil

from supervisor.process.command_line import worker_script
from supervisor.process.instance import is_running
from supervisor.process.procfs import Stat, create_time, read_stat, read_table
from supervisor.process.scan import ProcessFacts
from supervisor.process.variables import STATE

_Program = tuple[int, str, tuple[str, ...]]
_ATTRIBUTES = ("uids", "exe", "cmdline", "environ", "cwd")


class Scanner:
    """Sees all processes but kernel threads and zombies."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[_Program, ProcessFacts]] = {}

    def snapshot(self) -> tuple[ProcessFacts, ...]:
        seen: dict[int, tuple[_Program, ProcessFacts]] = {}
        for stat in read_table().values():
            if stat.is_kernel_thread or not stat.is_alive:
                continue
            entry = self._known(stat) or _look_at(stat)
            if entry is not None:
                seen[stat.pid] = entry
        self._seen = seen
        return tuple(facts for _, facts in seen.values())

    def _known(self, stat: Stat) -> tuple[_Program, ProcessFacts] | None:
        entry = self._seen.get(stat.pid)
        if (
            entry is None
            or entry[0] != _program(stat)
            or entry[1].ppid != stat.ppid
            or entry[1].environ == {}
        ):
            return None
        return entry


def _program(stat: Stat) -> _Program:
    return stat.start_ticks, stat.name, stat.program


def _look_at(stat: Stat) -> tuple[_Program, ProcessFacts] | None:
    """None for a process that ended, or executed another program, while it was looked at."""
    try:
        values = psutil.Process(stat.pid).as_dict(_ATTRIBUTES, ad_value=None)
    except psutil.Error:
        return None
    after = read_stat(stat.pid)
    if after is None or _program(after) != _program(stat) or values["uids"] is None:
        return None
    exe, cmdline, cwd = values["exe"] or "", tuple(values["cmdline"] or ()), values["cwd"] or None
    script = worker_script(exe, cmdline, cwd)
    facts = ProcessFacts(
        pid=stat.pid,
        ppid=stat.ppid,
        uid=values["uids"].real,
        start_ticks=stat.start_ticks,
        create_time=create_time(stat.start_ticks),
        exe=exe,
        cmdline=cmdline,
        environ=values["environ"],
        cwd=cwd,
        script=os.path.realpath(script) if script is not None else None,
    )
    return _program(stat), facts


def live_states(processes: Iterable[ProcessFacts], own: str) -> frozenset[str]:
    """The other state directories that processes name, and whose daemon is alive."""
    named = {_state(process.environ) for process in processes} - {None, own}
    return frozenset(s for s in named if s is not None and os.path.isabs(s) and is_running(Path(s)))


def _state(environ: Mapping[str, str] | None) -> str | None:
    return environ.get(STATE) if environ is not None else None
