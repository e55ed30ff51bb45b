"""The guard's side of the socket: whatever a daemon says, the guard takes it or lets go of the connection.

The first byte tells into what pieces the rest is cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import math
import types
import typing
from collections.abc import Iterable

from agent_guard import messages
from agent_guard.framing import MAX_LINE, Decoder, FramingError, encode
from agent_guard.messages import MessageError, ToGuard, WorkerHello, parse
from agent_guard.transport import Connection
from tests.fuzz.checks import hold, played, scratch, soon

HELLO = WorkerHello(agent_id="a", guard="1", agents="1", executor="process", max_load=None)

Outcome = tuple[list[ToGuard], bool]
"""What was understood, and whether it ended in an error."""


def guard_side(data: bytes) -> None:
    size = max(1, int.from_bytes(data[:1]))
    stream = data[1:]
    with soon():
        whole = _understood([stream])
        pieces = _understood(stream[i : i + size] for i in range(0, len(stream), size))
    hold(whole[1] == pieces[1], "in pieces it ends otherwise:", whole, pieces)
    if not whole[1]:  # an error in the same chunk takes what came before it along
        hold(repr(whole) == repr(pieces), "in pieces it is something else:", whole, pieces)
    for message in pieces[0]:
        _check(message)
    played(lambda: _scene(stream))


def _understood(pieces: Iterable[bytes]) -> Outcome:
    decoder, found = Decoder(), list[ToGuard]()
    try:
        for piece in pieces:
            for wire in decoder.feed(piece):
                message = parse(wire)
                if message is not None:
                    found.append(message)
            hold(len(decoder._rest) < MAX_LINE, "keeps", len(decoder._rest))
    except (FramingError, MessageError):
        return found, True
    return found, False


def _check(message: ToGuard) -> None:
    """Every field is of the type that it is declared with, and no number breaks a clock."""
    hints = typing.get_type_hints(type(message), vars(messages))
    for field in dataclasses.fields(message):
        value = getattr(message, field.name)
        hint = hints[field.name]
        kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        hold(type(value) in kinds, "of another type:", message)
        hold(not isinstance(value, float) or (math.isfinite(value) and value >= 0), "is no time:", message)


# --- a whole connection -------------------------------------------------------------------------------


class _Errors(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


async def _scene(stream: bytes) -> None:
    """A daemon that says this and hangs up."""
    path = str(scratch() / "daemon.sock")
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hello = await reader.readline()
        hold(encode(messages.to_wire(HELLO)) == hello, "says", hello)
        with contextlib.suppress(ConnectionError):  # it may have had enough
            writer.write(stream)
            writer.write_eof()
            await reader.read()  # until the guard lets go
        writer.close()
        over.set()

    received: list[ToGuard] = []
    lost: list[bool] = []
    errors = _Errors()
    logger = logging.getLogger("agent_guard")
    logger.addHandler(errors)
    server = await asyncio.start_unix_server(serve, path)
    connection = Connection(path, lambda: HELLO, received.append, lambda: lost.append(True))
    try:
        await connection.open(wait=0.0)
        await over.wait()
        server.close()
        await server.wait_closed()
        await connection.close()
    finally:
        logger.removeHandler(errors)
    hold(not errors.records, "a defect was caught:", [r.exc_info for r in errors.records])
    hold(not connection.up, "is up without a daemon")
    welcomed = any(isinstance(message, messages.Welcome) for message in received)
    hold(lost == [True] * welcomed, "was told of the loss", lost)
