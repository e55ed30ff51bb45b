"""Ending workers that a stop has left over, once their daemon is gone.

One rule: only a stop that was ordered ends workers.  The daemon writes down that it was, before it begins; a
crash, a watchdog's kill and a hand-over leave no such note, and the workers go on to the next daemon.  Of a
daemon that was told to stop while it was still being loaded, systemd tells.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

from supervisor.process import lock
from supervisor.process.ending import PATIENCE, Prey, end
from supervisor.process.files import FileRefused, StateDirectoryError, open_own
from supervisor.process.instance import InstanceLock
from supervisor.process.procfs import Marked, carrying, variable
from supervisor.process.variables import LAUNCH, STATE


class StopNote:
    """``stopping`` in the state directory, there from the order to stop until the next start."""

    def __init__(self, state: Path) -> None:
        self._path = state / "stopping"

    def write(self) -> None:
        with contextlib.suppress(FileRefused):  # then the workers are ended as ever, and nobody cleans up
            os.close(open_own(self._path, os.O_WRONLY | os.O_CREAT))

    def remove(self) -> None:
        with contextlib.suppress(OSError):
            self._path.unlink()

    @property
    def written(self) -> bool:
        return os.path.lexists(self._path)


def clean_up(state: Path, *, after_stop: bool) -> tuple[int, ...]:
    """The processes that were ended.  ``after_stop``: only if a stop had been ordered, as far as is known.

    Raises :class:`supervisor.process.instance.AlreadyRunning` or
    :class:`supervisor.process.files.StateDirectoryError`.
    """
    note = StopNote(state)
    if not _is_directory(state) or (after_stop and not note.written and not _stopped_early()):
        return ()
    instance = InstanceLock(state)
    try:
        killed = asyncio.run(_end_all(state))
        note.remove()
        return killed
    finally:
        instance.release()


def _is_directory(state: Path) -> bool:
    try:
        return state.is_dir()
    except OSError as error:  # below a directory of another user
        raise StateDirectoryError(f"{state}: cannot be looked at: {error.strerror}") from error


def _stopped_early() -> bool:
    """Whether systemd ended a daemon that had not yet learnt to stop in good order: no note was written."""
    told = {"SERVICE_RESULT": "success", "EXIT_CODE": "killed", "EXIT_STATUS": "TERM"}
    return all(os.environ.get(name) == value for name, value in told.items())


async def _end_all(state: Path) -> tuple[int, ...]:
    killed = list((await end(Prey(marked=_of(state)), PATIENCE)).killed)
    for path in (state / "agents").glob("*.lock"):
        with contextlib.suppress(FileRefused):
            if lock.is_held(path):
                killed += (await end(Prey(lock_path=path), PATIENCE)).killed
    return tuple(killed)


def _of(state: Path) -> Marked:
    """What a daemon of this state directory has started, and all that came from it."""
    marked = carrying(((STATE, str(state)),))
    return lambda environment: marked(environment) and variable(environment, LAUNCH) is not None
