"""The store of a single host: everything goes through one thread that owns the database.

The rule: no caller ever waits for the disk and none is ever told of its failures by an exception.  What is
to be written waits in memory, only the last word on each room, and is tried again until it is kept; a
failure is published as :class:`StoreFailed` and costs, at worst, the oldest history.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from supervisor.core.ports import StoredClaim, StoredIntent
from supervisor.events import Event, EventBus, Level, StoreFailed
from supervisor.log import rfc3339
from supervisor.store.database import Batch, Database, HistoryRow, decode

T = TypeVar("T")

HISTORY_WAITING = 10_000
"""Events that wait for a disk that is full or slow; beyond that the oldest are dropped."""

TEXT_LIMIT = 8_192
"""Longest text of one field in the history: enough for a traceback."""

PRUNE_AFTER_ROWS = 20_000
"""History written since the last pruning after which the store prunes by itself."""

CONFLICTS_LIMIT = 1_000

GATHER_SECONDS = 0.01
"""What is queued within this time goes into one transaction.  Nobody is woken for each write of a burst:
the event loop would have to wait for the interpreter's lock as often."""

FIRST_RETRY, LAST_RETRY = 0.5, 30.0
FLUSH_SECONDS = 1.0
ANSWER_SECONDS = 10.0
CLOSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class _Request(Generic[T]):
    """Something that a coroutine waits for, done after all that was queued before it."""

    operation: str
    work: Callable[[Database], T]
    future: asyncio.Future[T]


class SqliteStore:
    """Implements :class:`supervisor.core.ports.ClaimStore`, keeps history, answers what happened."""

    def __init__(self, path: Path, bus: EventBus, *, max_age: float, max_size: int) -> None:
        self._bus = bus
        self._max_age = max_age
        self._max_size = max_size
        self._database = Database(path, set_aside=self._was_set_aside)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)
        self._condition = threading.Condition()
        self._hurry = threading.Event()
        """Somebody waits for an answer, or for the end."""
        # Guarded by the condition:
        self._claims: dict[str, StoredClaim | None] = {}
        self._intents: dict[str, StoredIntent | None] = {}
        self._history: deque[HistoryRow] = deque(maxlen=HISTORY_WAITING)
        self._dropped = 0
        self._epoch = 0
        self._requests: deque[_Request[Any]] = deque()
        self._closing = False

    def start(self) -> None:
        """Begin to write; needs a running event loop.  What was queued before is not lost."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def aclose(self) -> None:
        """Write what is left, for as long as :data:`CLOSE_SECONDS`.  May be called again."""
        with self._condition:
            self._closing = True
            self._hurry.set()
            self._condition.notify()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, CLOSE_SECONDS)

    def limits(self, *, max_age: float, max_size: int) -> None:
        """After a reload."""
        self._max_age, self._max_size = max_age, max_size

    # --- claims and intents ---

    def save_claim(self, claim: StoredClaim) -> None:
        self._queue_claim(claim.claim.room, claim)

    def delete_claim(self, room: str) -> None:
        self._queue_claim(room, None)

    def save_intent(self, intent: StoredIntent) -> None:
        self._queue_intent(intent.room, intent)

    def delete_intent(self, room: str) -> None:
        self._queue_intent(room, None)

    def _queue_claim(self, room: str, claim: StoredClaim | None) -> None:
        with self._condition:
            self._claims[room] = claim
            if claim is not None:
                self._epoch = max(self._epoch, claim.claim.epoch)
            self._condition.notify()

    def _queue_intent(self, room: str, intent: StoredIntent | None) -> None:
        with self._condition:
            self._intents[room] = intent
            self._condition.notify()

    async def load_claims(self) -> tuple[StoredClaim, ...]:
        return await self._ask("load claims", Database.claims, ())

    async def load_epoch(self) -> int:
        return await self._ask("load epoch", Database.epoch, 0)

    async def load_intents(self) -> tuple[StoredIntent, ...]:
        return await self._ask("load intents", Database.intents, ())

    async def flush(self) -> bool:
        # The thread answers a request only after the writes before it; it fails when they did.
        return await self._ask("flush", lambda _: True, False, timeout=FLUSH_SECONDS)

    # --- history ---

    def record(self, event: Event) -> None:
        """A subscriber: keep everything that is at least information."""
        # A failure to store cannot be stored, and must not cause the next one.
        if event.level < Level.INFO or isinstance(event, StoreFailed):
            return
        fields = {k: v[:TEXT_LIMIT] if isinstance(v, str) else v for k, v in event.data().items()}
        row = HistoryRow(time.time(), event.name(), int(event.level), _encode(fields))
        with self._condition:
            if len(self._history) == HISTORY_WAITING:
                self._dropped += 1
            self._history.append(row)
            self._condition.notify()

    async def conflicts(self, since: float | None = None) -> list[dict[str, object]]:
        """Those resolved since then (Unix seconds), the last :data:`CONFLICTS_LIMIT`, oldest first."""
        rows = await self._rows(("conflict_resolved",), since or 0.0, CONFLICTS_LIMIT)
        return [_conflict(row) for row in rows]

    async def recent(self, names: Iterable[str], limit: int) -> list[tuple[float, str, dict[str, object]]]:
        """The last events of these names: wall time, name and fields, oldest first."""
        rows = await self._rows(tuple(names), 0.0, limit)
        return [(row.time, row.name, decode(row)) for row in rows]

    async def _rows(self, names: tuple[str, ...], since: float, limit: int) -> list[HistoryRow]:
        return await self._ask("read history", lambda database: database.history(names, since, limit), [])

    async def prune(self) -> None:
        """Delete what is too old or too much."""
        await self._ask("prune", self._prune, None, timeout=60.0)

    def _prune(self, database: Database) -> None:
        database.prune(time.time() - self._max_age, self._max_size)

    # --- between the event loop and the thread ---

    async def _ask(
        self, operation: str, work: Callable[[Database], T], otherwise: T, *, timeout: float = ANSWER_SECONDS
    ) -> T:
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        with self._condition:
            if self._closing or not self._thread.is_alive():
                return otherwise
            self._requests.append(_Request(operation, work, future))
            self._hurry.set()
            self._condition.notify()
        try:
            return await asyncio.wait_for(future, timeout)
        except _Unanswered:
            return otherwise  # published where it happened
        except TimeoutError:
            self._bus.publish(StoreFailed(operation=operation, error=f"no answer in {timeout:g} s"))
            return otherwise

    def _report(self, operation: str, error: object) -> None:
        self._call(self._bus.publish, StoreFailed(operation=operation, error=str(error)))

    def _was_set_aside(self, path: Path, reason: str) -> None:
        self._report("open", f"started anew, the old database is now {path}: {reason}")

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
                self._loop.call_soon_threadsafe(function, *arguments)

    # --- the thread ---

    def _run(self) -> None:
        retry_at, delay, written = 0.0, FIRST_RETRY, 0
        while True:
            batch, requests, closing = self._take(retry_at)
            failed = self._write(batch) if batch else None
            if failed is None:
                retry_at, delay = 0.0, FIRST_RETRY
                written += len(batch.history)
            else:
                self._report("write", failed)
                self._put_back(batch, keep=_worth_another_try(failed))
                retry_at, delay = time.monotonic() + delay, min(delay * 2, LAST_RETRY)
            for request in requests:
                self._answer(request, failed)
            if written >= PRUNE_AFTER_ROWS:
                written = 0
                self._attempt("prune", self._prune)
            if closing:
                self._database.close()
                return

    def _take(self, retry_at: float) -> tuple[Batch, list[_Request[Any]], bool]:
        """Wait for something to do; after a failure only a question or the end comes before its time."""
        with self._condition:
            while not (self._closing or self._requests):
                wait = retry_at - time.monotonic()
                if wait <= 0 and self._waiting():
                    break
                self._condition.wait(wait if wait > 0 and self._waiting() else None)
        self._hurry.wait(GATHER_SECONDS)
        with self._condition:
            self._hurry.clear()
            batch = Batch(self._claims, self._intents, tuple(self._history), self._epoch)
            self._claims, self._intents, self._epoch = {}, {}, 0
            self._history.clear()
            requests, dropped = list(self._requests), self._dropped
            self._requests.clear()
            self._dropped = 0
        if dropped:
            self._report("history", f"{dropped} events dropped: the disk is full or too slow")
        return batch, requests, self._closing

    def _waiting(self) -> bool:
        return bool(self._claims or self._intents or self._history)

    def _write(self, batch: Batch) -> Exception | None:
        try:
            self._database.write(batch)
        except Exception as error:  # whatever it is, it is published, and the thread must go on
            return error
        return None

    def _put_back(self, batch: Batch, *, keep: bool) -> None:
        """What could not be written waits behind what came meanwhile; a batch that never can be is lost."""
        if not keep:
            return
        with self._condition:
            self._claims = {**batch.claims, **self._claims}
            self._intents = {**batch.intents, **self._intents}
            self._epoch = max(batch.epoch, self._epoch)
            newer = tuple(self._history)
            self._dropped += max(0, len(batch.history) + len(newer) - HISTORY_WAITING)
            self._history = deque((*batch.history, *newer), maxlen=HISTORY_WAITING)

    def _answer(self, request: _Request[Any], failed: Exception | None) -> None:
        if failed is not None and request.operation == "flush":
            self._call(_settle, request.future, None, _Unanswered())
            return
        try:
            result = request.work(self._database)
        except Exception as error:  # as in _write
            self._database.close()
            self._report(request.operation, error)
            self._call(_settle, request.future, None, _Unanswered())
        else:
            self._call(_settle, request.future, result, None)

    def _attempt(self, operation: str, work: Callable[[Database], None]) -> None:
        try:
            work(self._database)
        except Exception as error:  # as in _write
            self._database.close()
            self._report(operation, error)


class _Unanswered(Exception):
    """The thread could not do it, and has said so."""


def _settle(future: asyncio.Future[Any], result: object, error: Exception | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)


def _worth_another_try(error: Exception) -> bool:
    """A disk may recover; values that do not fit into the table never will."""
    never = sqlite3.IntegrityError | sqlite3.DataError | sqlite3.ProgrammingError | sqlite3.InterfaceError
    return isinstance(error, sqlite3.Error) and not isinstance(error, never)


_encode = json.JSONEncoder(default=str).encode  # json.dumps() would make one for each event


def _conflict(row: HistoryRow) -> dict[str, object]:
    fields = decode(row)
    return {
        "time": rfc3339(row.time),
        **{key: fields.get(key) for key in ("kind", "resolution", "room", "agent_id", "seconds")},
    }
