"""What watchers of the status page are sent, as server-sent events.

The rule: it costs nothing while nobody watches, little however many do, and a watcher who does not read is
let go instead of waited for; the page connects again and starts from the present.

Three messages: ``status`` (the whole document), ``rooms`` (``{"reset", "changed", "removed"}``: only what
differs from the message before) and ``timeline`` (a list of entries, the newest last).  The server adds
``ping`` when there has been nothing to say.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import deque
from collections.abc import Iterable, Iterator

from supervisor.endpoints.ports import Document, Views
from supervisor.endpoints.timeline import LINES, Fields, entry
from supervisor.events import Event, EventBus, InternalError
from supervisor.log import rfc3339

REMEMBERED = 200
"""Entries of the timeline that a new watcher gets."""

MAX_WATCHERS = 32
MESSAGES_WAITING = 256
LOOK_SECONDS = 5.0
"""Between two looks when nothing is said to have happened: memory, humans in a room."""

SETTLE_SECONDS = 0.1
"""An event is seldom alone."""

IDLE_SHARE = 20
"""After a look that took so long, wait so many times longer: it never takes more than 5 % of the loop."""

QUIET = frozenset({"reconciled", "webhook_received", "livekit_request"})
"""Events that change nothing one could see."""


class Watcher:
    """One open page."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue(MESSAGES_WAITING)

    def send(self, message: bytes) -> bool:
        try:
            self._queue.put_nowait(message)
        except asyncio.QueueFull:
            self.dismiss()
            return False
        return True

    def dismiss(self) -> None:
        """Nothing more will come."""
        while not self._queue.empty():
            self._queue.get_nowait()
        self._queue.put_nowait(None)

    async def next(self) -> bytes | None:
        """The next message; None: this is the end."""
        return await self._queue.get()


class Feed:
    """Subscribe :meth:`__call__` to the bus."""

    def __init__(self, views: Views, bus: EventBus) -> None:
        self._views = views
        self._bus = bus
        self._timeline: deque[Document] = deque(maxlen=REMEMBERED)
        self._watchers: set[Watcher] = set()
        self._stirred = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._status: Document = {}
        self._rooms: dict[str, Document] = {}

    def preload(self, past: Iterable[tuple[float, str, Fields]]) -> None:
        """Events from the history (wall time, name, fields), oldest first, before what happened since."""
        before = [e for wall, name, fields in past if (e := entry(rfc3339(wall), name, fields)) is not None]
        self._timeline = deque((*before, *self._timeline), maxlen=REMEMBERED)

    def __call__(self, event: Event) -> None:
        """The subscriber."""
        name = event.name()
        if name in QUIET:
            return
        self._stirred.set()
        if name not in LINES:
            return
        line = entry(rfc3339(time.time()), name, event.data())
        if line is not None:
            self._timeline.append(line)
            if self._watchers:
                self._send(_message("timeline", [line]))

    # --- watchers ---

    @property
    def full(self) -> bool:
        return self._closed or len(self._watchers) >= MAX_WATCHERS

    @contextlib.contextmanager
    def watch(self) -> Iterator[Watcher]:
        """A watcher who has been sent the present already."""
        self._look()
        watcher = Watcher()
        watcher.send(_message("status", self._status))
        rooms = {"reset": True, "changed": list(self._rooms.values()), "removed": []}
        watcher.send(_message("rooms", rooms))
        watcher.send(_message("timeline", list(self._timeline)))
        self._watchers.add(watcher)
        if self._task is None:
            self._task = asyncio.create_task(self._keep_looking(), name="status page feed")
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)
            if not self._watchers:
                self._rest()

    async def aclose(self) -> None:
        """Let everybody go."""
        self._closed = True
        for watcher in self._watchers:
            watcher.dismiss()
        self._rest()

    def _rest(self) -> None:
        """Nobody watches any more."""
        if self._task is not None:
            self._task.cancel()
        self._task, self._status, self._rooms = None, {}, {}

    # --- looking ---

    async def _keep_looking(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stirred.wait(), LOOK_SECONDS)
            await asyncio.sleep(SETTLE_SECONDS)
            self._stirred.clear()
            started = time.perf_counter()
            try:
                self._look()
            except Exception as error:  # a defect in a view must not end the feed for good
                self._bus.publish(InternalError.of("status page", error))
                await asyncio.sleep(LOOK_SECONDS)
            await asyncio.sleep((time.perf_counter() - started) * IDLE_SHARE)

    def _look(self) -> None:
        """Read the present, and send what is different from the last time."""
        status = self._views.status()
        if status != self._status:
            self._status = status
            self._send(_message("status", status))
        listed = self._views.rooms()["rooms"]
        assert isinstance(listed, list)
        rooms: dict[str, Document] = {str(room["name"]): room for room in listed}
        before, self._rooms = self._rooms, rooms
        changed = [room for name, room in rooms.items() if before.get(name) != room]
        removed = [name for name in before if name not in rooms]
        if changed or removed:
            self._send(_message("rooms", {"reset": False, "changed": changed, "removed": removed}))

    def _send(self, message: bytes) -> None:
        for watcher in [w for w in self._watchers if not w.send(message)]:
            self._watchers.discard(watcher)


def _message(event: str, data: object) -> bytes:
    return f"event: {event}\ndata: {json.dumps(data, default=str)}\n\n".encode()
