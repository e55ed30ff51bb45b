"""Real LiveKit servers: one shared by a module, or as many of its own as a test needs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from tests.livekit.server import LiveKitServer


class MakeServer(Protocol):
    def __call__(
        self, *, webhook_urls: tuple[str, ...] = (), departure_timeout: int = 20
    ) -> LiveKitServer: ...


@pytest.fixture(scope="module")
def livekit_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveKitServer]:
    """One running server, without webhooks, for all tests of a module: leave it running and tidy."""
    server = LiveKitServer(tmp_path_factory.mktemp("livekit"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def make_livekit_server(tmp_path: Path) -> Iterator[MakeServer]:
    """Starts servers for this test alone, to be killed, stopped and started at will."""
    servers: list[LiveKitServer] = []

    def make(*, webhook_urls: tuple[str, ...] = (), departure_timeout: int = 20) -> LiveKitServer:
        folder = tmp_path / f"livekit-{len(servers)}"
        server = LiveKitServer(folder, webhook_urls=webhook_urls, departure_timeout=departure_timeout)
        servers.append(server)
        server.start()
        return server

    yield make
    for server in servers:
        server.kill()
