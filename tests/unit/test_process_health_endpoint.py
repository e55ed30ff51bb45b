"""A health endpoint of every kind: well, complaining, silent, absent, and no HTTP at all."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from supervisor.process.health_endpoint import LONGEST_COMPLAINT, complaints
from tests.ports import free_port


@contextlib.asynccontextmanager
async def answering(answer: bytes | None) -> AsyncIterator[int]:
    """A port that sends ``answer`` to whoever asks; None: nothing until the other side gives up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if answer is None:
            await reader.read()
        else:
            writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def http(status: str, body: str) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        pytest.param(http("200 OK", "OK"), {"a": None}, id="well"),
        pytest.param(http("503 No", "no process"), {"a": "503 no process"}, id="complains"),
        pytest.param(http("503 No", "x" * 9000), {"a": "503 " + "x" * LONGEST_COMPLAINT}, id="at length"),
        pytest.param(http("404 What", ""), {"a": None}, id="another program's page is no complaint"),
        pytest.param(b"SSH-2.0-nothing\r\n", {}, id="no HTTP"),
        pytest.param(None, {}, id="silent"),
    ],
)
async def test_only_a_server_error_is_a_complaint(answer: bytes | None, told: dict[str, str | None]) -> None:
    async with answering(answer) as port:
        assert await complaints({"a": port}, timeout=0.5) == told


async def test_one_that_is_silent_hides_nothing_of_the_others() -> None:
    async with answering(None) as silent, answering(http("503 No", "ill")) as ill:
        asked = {"silent": silent, "ill": ill, "absent": free_port(), "impossible": 99_999}
        assert await complaints(asked, timeout=0.5) == {"ill": "503 ill"}


async def test_nobody_to_ask() -> None:
    assert await complaints({}, timeout=0.5) == {}
