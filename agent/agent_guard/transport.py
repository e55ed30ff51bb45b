"""The connection to the daemon: kept up by itself, and never in anyone's way.

One rule: everything runs on the event loop of the worker or job it speaks for, so that a loop that is
stuck is silent; and nothing here waits for the daemon, raises because of it, or stores without bound.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Callable

from agent_guard import log
from agent_guard.framing import Decoder, FramingError, encode
from agent_guard.messages import (
    Hello,
    MessageError,
    Refused,
    Report,
    ToDaemon,
    ToGuard,
    Welcome,
    parse,
    to_wire,
)

FIRST_RETRY = 0.05
LAST_RETRY = 1.0
MAX_BACKLOG = 256 * 1024
MAX_REPORTS = 32
_CHUNK = 64 * 1024


class Connection:
    """``hello`` is asked anew for every connection, so that it says what holds at that moment."""

    def __init__(
        self,
        path: str,
        hello: Callable[[], Hello],
        on_message: Callable[[ToGuard], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._path = path
        self._hello = hello
        self._on_message = on_message
        self._on_lost = on_lost
        self._writer: asyncio.StreamWriter | None = None
        self._welcomed = asyncio.Event()
        self._tried = asyncio.Event()
        """Welcomed, or nobody listens."""
        self._task: asyncio.Task[None] | None = None
        self._reports: deque[Report] = deque(maxlen=MAX_REPORTS)

    @property
    def up(self) -> bool:
        """The daemon has welcomed us and nothing has ended the connection since."""
        return self._welcomed.is_set()

    async def open(self, wait: float) -> bool:
        """Start connecting; wait a little for the daemon's welcome, and not at all where nobody listens."""
        self._task = asyncio.ensure_future(self._keep())
        waiting = asyncio.ensure_future(self._tried.wait())
        try:
            await asyncio.wait({waiting}, timeout=wait)
        finally:
            waiting.cancel()
        return self.up

    def send(self, message: ToDaemon) -> bool:
        """Hand it to the kernel.  False: the daemon is away, and the message is not kept."""
        return self.up and self._write(message)

    def report(self, report: Report) -> None:
        """Like :meth:`send`, but the latest few are kept for when the daemon is back."""
        if not self.send(report):
            self._reports.append(report)

    async def close(self, last: ToDaemon | None = None) -> None:
        if last is not None:
            self.send(last)
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    def _write(self, message: ToDaemon) -> bool:
        writer = self._writer
        if writer is None or writer.transport.is_closing():
            return False
        if writer.transport.get_write_buffer_size() > MAX_BACKLOG:
            writer.transport.abort()
            return False
        try:
            writer.write(encode(to_wire(message)))
        except FramingError as error:
            log.logger.error(log.NOT_SENT, extra={"type": message.type, "error": str(error)})
            return False
        return True

    async def _keep(self) -> None:
        retry = FIRST_RETRY
        while True:
            welcomed = await self._connect_once()
            retry = FIRST_RETRY if welcomed else min(retry * 2, LAST_RETRY)
            await asyncio.sleep(retry)

    async def _connect_once(self) -> bool:
        """One connection's life; whether the daemon welcomed us in it."""
        try:
            reader, self._writer = await asyncio.open_unix_connection(self._path)
        except OSError:
            self._tried.set()
            return False
        welcomed = False
        try:
            self._write(self._hello())
            await self._read(reader)
        except (OSError, FramingError, MessageError) as error:
            log.logger.debug(log.DISCONNECTED, extra={"error": str(error)})
        except Exception:  # a defect in what handles messages must not part us from the daemon for good
            log.logger.exception(log.DISCONNECTED)
        finally:
            welcomed = self._end()
        return welcomed

    async def _read(self, reader: asyncio.StreamReader) -> None:
        decoder = Decoder()
        while data := await reader.read(_CHUNK):
            for wire in decoder.feed(data):
                message = parse(wire)
                if isinstance(message, Refused):
                    log.logger.warning(log.REFUSED, extra={"reason": message.reason})
                    return
                if isinstance(message, Welcome):
                    self._welcome()
                if message is not None:
                    self._on_message(message)

    def _welcome(self) -> None:
        self._welcomed.set()
        self._tried.set()
        while self._reports:
            self._write(self._reports.popleft())

    def _end(self) -> bool:
        welcomed = self.up
        self._welcomed.clear()
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
        if welcomed:
            self._on_lost()
        return welcomed


def tell(path: str, hello: Hello, message: ToDaemon, wait: float = 1.0) -> None:
    """Say one thing without an event loop, before the process ends; if nobody listens, so be it."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(wait)
        peer.connect(path)
        peer.sendall(encode(to_wire(hello)))
        peer.recv(_CHUNK)
        peer.sendall(encode(to_wire(message)))
