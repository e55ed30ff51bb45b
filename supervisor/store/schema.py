"""The tables, as a list of migrations: the rule is that a migration, once released, never changes.

``PRAGMA user_version`` counts those that a file has seen.  A file with a higher number was written by a
newer version; it is set aside like a damaged one, since what it holds can be rebuilt.
"""

from __future__ import annotations

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE claims (
        room            TEXT PRIMARY KEY,
        agent_id        TEXT NOT NULL,
        job_id          TEXT NOT NULL,
        epoch           INTEGER NOT NULL,
        state           TEXT NOT NULL,
        identity        TEXT NOT NULL,
        dispatch_id     TEXT NOT NULL,
        job_pid         INTEGER NOT NULL,
        joined          INTEGER NOT NULL,
        job_create_time REAL NOT NULL
    ) WITHOUT ROWID;

    CREATE TABLE intents (
        room     TEXT PRIMARY KEY,
        agent_id TEXT NOT NULL,
        metadata TEXT NOT NULL
    ) WITHOUT ROWID;

    -- One row: the highest epoch of any claim ever saved.  It outlives the claims themselves, so that
    -- a daemon that starts with an empty table does not give an old epoch again.
    CREATE TABLE fence (
        id    INTEGER PRIMARY KEY CHECK (id = 1),
        epoch INTEGER NOT NULL
    );
    INSERT INTO fence VALUES (1, 0);

    CREATE TABLE history (
        id    INTEGER PRIMARY KEY,
        time  REAL NOT NULL,
        name  TEXT NOT NULL,
        level INTEGER NOT NULL,
        data  TEXT NOT NULL
    );
    CREATE INDEX history_time ON history (time);
    CREATE INDEX history_name ON history (name, time);
    """,
)

VERSION = len(MIGRATIONS)
