"""One SQLite file, used from one thread.

The rule: whatever is wrong with the file, the next call starts from a sound one.  A damaged file (or one
of a newer version) is renamed aside and a new one begun; any other failure is raised to the caller, who
may simply try again: the connection is opened anew when it has to be.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from supervisor.core.model import Claim, ClaimState
from supervisor.core.ports import StoredClaim, StoredIntent
from supervisor.store.schema import MIGRATIONS, VERSION

T = TypeVar("T")

BUSY_SECONDS = 2.0
"""How long a lock held by another program (a curious ``sqlite3`` shell) is waited for."""

WAL_LIMIT_BYTES = 4 * 1024 * 1024

PRUNE_CHUNK = 2_000
"""Rows deleted in one transaction: short, so that the log beside the database stays small."""

DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


@dataclass(frozen=True, slots=True)
class HistoryRow:
    time: float
    name: str
    level: int
    data: str
    """JSON."""


@dataclass(slots=True)
class Batch:
    """Writes that belong into one transaction; the last word on a room counts (None: delete)."""

    claims: dict[str, StoredClaim | None] = field(default_factory=dict)
    intents: dict[str, StoredIntent | None] = field(default_factory=dict)
    history: Sequence[HistoryRow] = ()
    epoch: int = 0
    """The highest epoch among the claims that were saved, the deleted ones included."""

    def __bool__(self) -> bool:
        return bool(self.claims or self.intents or self.history or self.epoch)


class NewerSchema(Exception):
    """The file was written by a newer version of this program."""


class Database:
    """Opens itself when it is first used."""

    def __init__(self, path: Path, *, set_aside: Callable[[Path, str], None]) -> None:
        self._path = path
        self._set_aside = set_aside
        """Told of a file that was renamed, with the reason."""
        self._connection: sqlite3.Connection | None = None

    # --- opening and closing ---

    def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do ``work`` in a transaction, on a new file if this one turns out to be damaged."""
        try:
            return self._transact(work)
        except sqlite3.DatabaseError as error:
            if not _damaged(error):
                raise
            self._replace(str(error))
        except NewerSchema as error:
            self._replace(str(error))
        return self._transact(work)

    def _transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        connection = self._open()
        try:
            with _transaction(connection):
                return work(connection)
        except sqlite3.DatabaseError as error:
            # A constraint of our own making is no reason to doubt the connection; all else is.
            if not isinstance(error, sqlite3.IntegrityError):
                self.close()
            raise

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            _create_private(self._path)
            connection = sqlite3.connect(self._path, timeout=BUSY_SECONDS, isolation_level=None)
            try:
                _prepare(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _replace(self, reason: str) -> None:
        self.close()
        aside = self._path.with_name(f"{self._path.name}.damaged")
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{self._path}{suffix}", f"{aside}{suffix}")
        self._set_aside(aside, reason)

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    # --- claims and intents ---

    def write(self, batch: Batch) -> None:
        self.run(lambda connection: _write(connection, batch))

    def claims(self) -> tuple[StoredClaim, ...]:
        return self.run(_read_claims)

    def epoch(self) -> int:
        return self.run(lambda c: int(c.execute("SELECT epoch FROM fence").fetchone()[0]))

    def intents(self) -> tuple[StoredIntent, ...]:
        query = "SELECT room, agent_id, metadata FROM intents"
        return self.run(lambda c: tuple(StoredIntent(*row) for row in c.execute(query)))

    # --- history ---

    def history(self, names: Iterable[str], since: float, limit: int) -> list[HistoryRow]:
        """The newest ``limit`` rows of these events since then, the oldest of them first."""
        wanted = tuple(names)
        marks = ",".join("?" * len(wanted))
        query = (
            f"SELECT time, name, level, data FROM history WHERE name IN ({marks}) AND time >= ?"
            " ORDER BY time DESC, id DESC LIMIT ?"
        )
        rows = self.run(lambda c: c.execute(query, (*wanted, since, limit)).fetchall())
        return [HistoryRow(*row) for row in reversed(rows)]

    def prune(self, older_than: float, max_size: int) -> None:
        """Delete rows older than that, then the oldest until the file is small enough, and shrink it."""
        while self.run(lambda c: _delete_before(c, older_than)):
            pass
        while (size := self.size()) > max_size:
            if not self.run(partial(_delete_share, share=(size - max_size) / size)):
                break
        connection = self._open()
        connection.executescript("PRAGMA incremental_vacuum")  # execute() would free one page only
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def size(self) -> int:
        """Bytes in use: what the file would have after a vacuum."""
        connection = self._open()
        pages, free, size = (
            int(connection.execute(f"PRAGMA {name}").fetchone()[0])
            for name in ("page_count", "freelist_count", "page_size")
        )
        return (pages - free) * size


def _damaged(error: sqlite3.DatabaseError) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    # Extended codes carry the primary one in their low byte.  A schema that does not fit its own version
    # number (a table is missing) is no better than a broken page.
    return (code is not None and code & 0xFF in DAMAGED) or "no such table" in str(error)


def _create_private(path: Path) -> None:
    """Readable by its owner only, from its first moment; SQLite gives its other files the same mode."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise sqlite3.OperationalError(f"{path}: {error.strerror}") from error


def _prepare(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA journal_mode = WAL")
    # In WAL mode this survives every crash of the process; a power cut may cost the last moments.
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT_BYTES}")
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > VERSION:
        raise NewerSchema(f"schema {version} is newer than this version knows ({VERSION})")
    for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
        connection.executescript(f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {number}; COMMIT;")


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        raise


def _write(connection: sqlite3.Connection, batch: Batch) -> None:
    saved = [stored for stored in batch.claims.values() if stored is not None]
    connection.executemany(
        "DELETE FROM claims WHERE room = ?", [(room,) for room, c in batch.claims.items() if c is None]
    )
    connection.executemany(
        "INSERT OR REPLACE INTO claims VALUES (?,?,?,?,?,?,?,?,?,?)", [_claim_row(stored) for stored in saved]
    )
    connection.execute("UPDATE fence SET epoch = max(epoch, ?)", (batch.epoch,))
    connection.executemany(
        "DELETE FROM intents WHERE room = ?", [(room,) for room, i in batch.intents.items() if i is None]
    )
    connection.executemany(
        "INSERT OR REPLACE INTO intents VALUES (?,?,?)",
        [(i.room, i.agent_id, i.metadata) for i in batch.intents.values() if i is not None],
    )
    connection.executemany(
        "INSERT INTO history (time, name, level, data) VALUES (?,?,?,?)",
        [(row.time, row.name, row.level, row.data) for row in batch.history],
    )


def _claim_row(stored: StoredClaim) -> tuple[object, ...]:
    c = stored.claim
    return (
        c.room,
        c.agent_id,
        c.job_id,
        c.epoch,
        c.state.value,
        c.identity,
        c.dispatch_id,
        c.job_pid,
        int(c.joined),
        float(stored.job_create_time),
    )


def _read_claims(connection: sqlite3.Connection) -> tuple[StoredClaim, ...]:
    rows = connection.execute(
        "SELECT room, agent_id, job_id, epoch, state, identity, dispatch_id, job_pid, joined, job_create_time"
        " FROM claims"
    )
    return tuple(
        StoredClaim(
            Claim(
                room=room,
                agent_id=agent_id,
                job_id=job_id,
                epoch=epoch,
                state=ClaimState(state),
                expires_at=0.0,
                identity=identity,
                dispatch_id=dispatch_id,
                job_pid=job_pid,
                joined=bool(joined),
            ),
            create_time,
        )
        for (
            room,
            agent_id,
            job_id,
            epoch,
            state,
            identity,
            dispatch_id,
            job_pid,
            joined,
            create_time,
        ) in rows
    )


def _delete_before(connection: sqlite3.Connection, moment: float) -> int:
    which = "SELECT id FROM history WHERE time < ? ORDER BY time LIMIT ?"
    return connection.execute(f"DELETE FROM history WHERE id IN ({which})", (moment, PRUNE_CHUNK)).rowcount


def _delete_share(connection: sqlite3.Connection, share: float) -> int:
    """The oldest rows, as many as take this share of the space; at least one."""
    rows = int(connection.execute("SELECT count(*) FROM history").fetchone()[0])
    count = min(PRUNE_CHUNK, math.ceil(rows * share))
    which = "SELECT id FROM history ORDER BY id LIMIT ?"
    return connection.execute(f"DELETE FROM history WHERE id IN ({which})", (count,)).rowcount


def decode(row: HistoryRow) -> dict[str, object]:
    """The event's fields as they were published."""
    fields: dict[str, object] = json.loads(row.data)
    return fields
