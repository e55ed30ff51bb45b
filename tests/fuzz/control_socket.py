"""The control socket: any request is answered in JSON, or its connection closed; the next one is answered.

The first line is a command, the rest its arguments.  After ``!`` come the bytes of whole requests; after
``?`` those of a query for conflicts.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from unittest import mock
from urllib.parse import quote_from_bytes

from supervisor.endpoints import serving
from supervisor.endpoints.control import ControlServer
from supervisor.events import InternalError
from tests.fuzz.checks import hold, played, scratch
from tests.fuzz.daemon import Daemon, turns
from tests.unit.endpoint_fakes import STATUS, FakeViews, Recorder

LONGEST_LINE = 8_000
"""What is longer is refused before anybody here hears of it."""
STATUSES = frozenset({200, 400, 404, 405, 409, 413})
PROBE = b"GET /v1/status HTTP/1.1\r\nHost: daemon\r\nConnection: close\r\n\r\n"


def control_socket(data: bytes) -> None:
    # The rest of a request is waited for a little after its answer, also by a server that ends.
    with mock.patch.object(serving, "UNREAD_SECONDS", 0.02):
        played(lambda: _scene(data))


async def _scene(data: bytes) -> None:
    daemon = Daemon()
    recorder = Recorder(daemon.bus)
    path = scratch() / "control.sock"
    server = ControlServer(path, FakeViews(), daemon.commands, daemon.bus)
    async with daemon.running():
        await server.start()
        try:
            request = _request(data)
            raw = data[:1] == b"!" or len(request.split(b"\r\n")[0]) > LONGEST_LINE
            answer = await _ask(path, request, hang_up=raw)
            if not raw:
                _check(answer)
            hold(_document(await _ask(path, PROBE)) == (200, STATUS), "the next one is not answered")
            await turns(5)
        finally:
            await server.aclose()
        defects = recorder.of(InternalError)
        hold(not defects, "defects:", defects)
        await daemon.settle()
        daemon.check()


def _request(data: bytes) -> bytes:
    head, body = data[:1], data[1:]
    if head == b"!":
        return body
    if head == b"?":
        target = f"/v1/conflicts?since={quote_from_bytes(body)}"
        return f"GET {target} HTTP/1.1\r\nHost: daemon\r\nConnection: close\r\n\r\n".encode()
    command, _, body = data.partition(b"\n")
    target = f"/v1/commands/{quote_from_bytes(command, safe='')}"
    lines = [f"POST {target} HTTP/1.1", "Host: daemon", "Connection: close", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def _ask(path: Path, request: bytes, *, hang_up: bool = False) -> bytes:
    """Everything that comes back, until the daemon hangs up; what is no whole request may have no answer."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    with contextlib.suppress(ConnectionError, BrokenPipeError):
        writer.write(request)
        if hang_up:
            await turns(20)
            writer.write_eof()
    answer = b""
    with contextlib.suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(10):
            answer = await reader.read()
    writer.close()
    with contextlib.suppress(ConnectionError, BrokenPipeError):
        await writer.wait_closed()
    return answer


def _check(answer: bytes) -> None:
    status, document = _document(answer)
    hold(status in STATUSES, "answered", answer)
    if status != 200:
        hold(isinstance(document.get("error"), str) and bool(document["error"]), "no reason:", answer)
        hold(document.get("exit_code") in (1, 2), "no exit code:", answer)


def _document(answer: bytes) -> tuple[int, dict[str, object]]:
    head, _, body = answer.partition(b"\r\n\r\n")
    try:
        document = json.loads(body, parse_constant=_not_json)
    except ValueError:
        document = None
    hold(isinstance(document, dict), "is no JSON object:", answer)
    assert isinstance(document, dict)
    return int(head.split(b" ", 2)[1]), document


def _not_json(name: str) -> None:
    raise ValueError(name)
