"""The pidfile tells which process was started; it decides nothing.

One rule: whatever is read here is a claim by a file.  Nobody is signalled, adopted or refused because of it
until the process itself has been looked at.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from supervisor.process.files import FileRefused, open_own, require_judgement
from supervisor.process.procfs import Identity, boot_id

VERSION = 1
_LARGEST = 4096


@dataclass(frozen=True, slots=True)
class Record:
    """What a pidfile says."""

    id: str
    """The agent ID, or the name of the supervised helper."""
    pid: int
    start_ticks: int
    """Clock ticks from boot to its start: does not move when the clock is set."""
    create_time: float
    """The same in Unix seconds, for people."""
    boot_id: str
    launch: str
    """The name of this one start; every descendant carries it in its environment."""
    command_hash: str
    version: int = VERSION

    @property
    def identity(self) -> Identity:
        return Identity(self.pid, self.start_ticks)


@dataclass(frozen=True, slots=True)
class Unusable:
    """There is no record to be had; ``reason`` says why, ``missing`` that there simply is no file."""

    reason: str
    missing: bool = False


def write(path: Path, record: Record) -> None:
    """Replace the pidfile: readers see the old one or the new one.  Raises ``OSError``.

    Not forced to the disk: after a crash of the machine its boot ID says that it is stale.
    """
    draft = path.with_name(f"{path.name}.tmp")
    remove(draft)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with open(os.open(draft, flags, 0o600), "w", encoding="ascii") as file:
            json.dump(asdict(record), file)
            file.write("\n")
        draft.replace(path)
    except OSError:
        remove(draft)
        raise


def remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def read(path: Path, expected_id: str) -> Record | Unusable:
    """The record of this boot for ``expected_id``, else why there is none.

    Raises ``OSError`` when we have come to a limit of our own: whatever it says is not known then.
    """
    try:
        text = _read_text(path)
    except FileRefused as error:
        require_judgement(error)
        return Unusable(str(error), missing=isinstance(error.__cause__, FileNotFoundError))
    except OSError as error:
        return Unusable(f"{path}: {error.strerror}")
    if len(text) > _LARGEST:
        return Unusable(f"{path}: is larger than {_LARGEST} bytes")
    record = _parse(text)
    if record is None:
        return Unusable(f"{path}: is no pidfile of version {VERSION}")
    if record.id != expected_id:
        return Unusable(f"{path}: is of another process than {expected_id}")
    if record.boot_id != boot_id():
        return Unusable(f"{path}: is from before the machine was started")
    return record


def _read_text(path: Path) -> bytes:
    descriptor = open_own(path, os.O_RDONLY)
    try:
        return os.read(descriptor, _LARGEST + 1)
    finally:
        os.close(descriptor)


def _parse(text: bytes) -> Record | None:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict) or values.get("version") != VERSION:
        return None
    names = [values.get(name) for name in ("id", "boot_id", "launch", "command_hash")]
    if not _in_range(values.get("pid"), 2, 2**31) or not _in_range(values.get("start_ticks"), 0, 2**63):
        return None
    if not isinstance(values.get("create_time"), float) or not all(isinstance(n, str) for n in names):
        return None
    return Record(
        id=values["id"],
        pid=values["pid"],
        start_ticks=values["start_ticks"],
        create_time=values["create_time"],
        boot_id=values["boot_id"],
        launch=values["launch"],
        command_hash=values["command_hash"],
    )


def _in_range(value: object, lowest: int, end: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and lowest <= value < end
