"""The processes of one state directory: started, adopted and cleared away, by ID.

One rule: between taking an ID's lock and giving it to the new process nothing is awaited, and whoever cannot
take the lock starts nothing.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from supervisor.core.ports import ProcessSpec, SpawnFailed
from supervisor.process import lock, pidfile
from supervisor.process.adoption import find_recorded, find_worker
from supervisor.process.ending import Prey, end
from supervisor.process.files import FileRefused, private_directory, require_judgement
from supervisor.process.handle import Origin, PosixProcess
from supervisor.process.limits import limit_open_files
from supervisor.process.logrender import render
from supervisor.process.logs import last_output
from supervisor.process.oom import OomCount
from supervisor.process.pidfd import Pidfd
from supervisor.process.procfs import Marked, boot_id, carrying, create_time, read_stat, variable
from supervisor.process.spawn import Launch, start
from supervisor.process.variables import LAUNCH

_LONGEST_ID = 200
"""Bytes; a file name has at most 255."""
_LAST_OUTPUT = 8192
_LAST_LINES = 20


@dataclass(frozen=True, slots=True)
class Paths:
    """Where an ID's lock and pidfile are."""

    lock: Path
    pidfile: Path


class PosixProcessHost:
    """Implements :class:`supervisor.core.ports.ProcessHost`.

    Creates ``agents`` in the state directory; raises :class:`supervisor.process.files.StateDirectoryError`.
    ``open_files`` is the soft limit of those that it starts, where ours is not for them.
    """

    def __init__(self, state_dir: Path, open_files: int | None = None) -> None:
        self._folder = state_dir / "agents"
        private_directory(self._folder)
        self._open_files = open_files
        self._oom_counts: dict[str, OomCount] = {}
        self._log_starts: dict[str, int] = {}

    def spawn(self, spec: ProcessSpec) -> PosixProcess:
        try:
            paths = self.paths(spec.id)
            descriptor = lock.acquire(paths.lock)
        except lock.LockHeld:
            who = _named(lock.holders(paths.lock))
            raise SpawnFailed(f"its lock is held, so it must not be started again{who}") from None
        except FileRefused as error:
            raise SpawnFailed(f"its lock cannot be used: {error}") from error
        try:
            return self._spawn_locked(spec, paths, descriptor)
        finally:
            os.close(descriptor)

    def _spawn_locked(self, spec: ProcessSpec, paths: Paths, descriptor: int) -> PosixProcess:
        # The lock is ours; yet a program may have closed a descriptor that it did not know.
        try:
            running = find_recorded(spec, paths.lock, paths.pidfile)
        except OSError as error:
            raise SpawnFailed(f"cannot tell whether it is running already: {error.strerror}") from error
        if running is not None:
            running.process.close()
            pid = running.process.identity.pid
            raise SpawnFailed(f"it is running already, though it gave up its lock: process {pid}")
        # What an old one tells would mislead whoever comes between now and the new one.
        pidfile.remove(paths.pidfile)
        launch = Launch.new(spec.command_hash)
        self._log_starts[spec.id] = _size(spec.log_path)
        pid, lacking = start(spec, descriptor, launch)
        if self._open_files is not None:
            limit_open_files(pid, self._open_files)
        try:
            process = Pidfd.open_child(pid)
        except OSError as error:
            _abandon(pid)
            raise SpawnFailed(f"cannot watch process {pid}: {error.strerror}") from error
        lacking = "; ".join(filter(None, (lacking, self._record(spec, paths, process, launch))))
        return self._handle(spec, paths, process, launch, adopted=False, lacking=lacking)

    def adopt(self, spec: ProcessSpec) -> PosixProcess | None:
        try:
            paths = self.paths(spec.id)
            found = find_worker(spec, paths.lock, paths.pidfile)
        except FileRefused as error:
            require_judgement(error)
            return None  # the spawn that follows says why
        if found is None:
            return None
        lacking = "" if found.has_pidfile else self._record(spec, paths, found.process, found.launch)
        return self._handle(spec, paths, found.process, found.launch, adopted=True, lacking=lacking)

    async def clear_leftovers(self, spec: ProcessSpec) -> tuple[int, ...]:
        try:
            paths = self.paths(spec.id)
            found = find_worker(spec, paths.lock, paths.pidfile)
        except FileRefused as error:
            require_judgement(error)
            return ()  # what it leaves might be the worker itself, in the middle of its calls
        if found is not None:
            found.process.close()
            return ()
        return (await end(Prey(marked=_launched_with(spec.marks), lock_path=paths.lock))).killed

    def held_ids(self) -> tuple[str, ...]:
        """The IDs of which something may run: also such as are configured no more.

        Their lock is held, or the process that the pidfile tells of lives: a program may have closed a
        descriptor that it did not know.  Whether it is that program, :meth:`adopt` judges.
        """
        held = {path.name.removesuffix(".lock") for path in self._folder.glob("*.lock") if _is_held(path)}
        recorded = {path.name.removesuffix(".pid") for path in self._folder.glob("*.pid") if _is_alive(path)}
        return tuple(sorted(held | recorded))

    def out_of_memory(self, spec: ProcessSpec) -> bool:
        """Whether the kernel, short of memory, has killed a process in its control group since its start."""
        count = self._oom_counts.get(spec.id)
        return count is not None and count.killed_since() is True

    def last_output(self, spec: ProcessSpec) -> str:
        """The end of what its latest process has written, as far as we saw it start; else of its log."""
        lines = last_output(Path(spec.log_path), self._log_starts.get(spec.id, 0), _LAST_OUTPUT)
        return "\n".join(render(line) for line in lines[-_LAST_LINES:])

    def paths(self, id: str) -> Paths:
        """Raises :class:`FileRefused` for an ID that cannot name a file."""
        if not id or id.startswith(".") or "/" in id or "\0" in id or len(id.encode()) > _LONGEST_ID:
            raise FileRefused(f"{id!r} cannot name a process: it must be fit for a file name")
        return Paths(self._folder / f"{id}.lock", self._folder / f"{id}.pid")

    def _handle(
        self, spec: ProcessSpec, paths: Paths, process: Pidfd, launch: Launch, *, adopted: bool, lacking: str
    ) -> PosixProcess:
        self._oom_counts[spec.id] = OomCount.for_process(process.identity.pid)
        origin = Origin(launch.name, spec.marks, launch.command_hash, paths.lock)
        return PosixProcess(process, origin, adopted=adopted, lacking=lacking)

    def _record(self, spec: ProcessSpec, paths: Paths, process: Pidfd, launch: Launch) -> str:
        """Write the pidfile; if that fails the worker runs all the same, since the lock decides."""
        identity = process.identity
        try:
            record = pidfile.Record(
                id=spec.id,
                pid=identity.pid,
                start_ticks=identity.start_ticks,
                create_time=create_time(identity.start_ticks),
                boot_id=boot_id(),
                launch=launch.name,
                command_hash=launch.command_hash,
            )
            pidfile.write(paths.pidfile, record)
        except OSError as error:
            return f"its pidfile cannot be written: {error.strerror}"
        return ""


def _size(path: str) -> int:
    try:
        return os.lstat(path).st_size
    except OSError:
        return 0


def _is_held(path: Path) -> bool:
    try:
        return lock.is_held(path)
    except FileRefused as error:
        require_judgement(error)
        return False


def _is_alive(path: Path) -> bool:
    """The process that this pidfile tells of."""
    record = pidfile.read(path, path.name.removesuffix(".pid"))
    if isinstance(record, pidfile.Unusable):
        return False
    stat = read_stat(record.pid)
    return stat is not None and stat.is_alive and stat.identity == record.identity


def _launched_with(marks: Iterable[tuple[str, str]]) -> Marked:
    """What any daemon of this state directory has started for these marks.

    Not what somebody else has given the same variables: that is a rogue, for the scan to judge.
    """
    marked = carrying(marks)
    return lambda environment: marked(environment) and variable(environment, LAUNCH) is not None


def _abandon(child: int) -> None:
    """Kill a child that has not been waited for: its pid is its own until then."""
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def _named(pids: Iterable[int]) -> str:
    named = ", ".join(str(pid) for pid in pids)
    return f": by process {named}" if named else ""
