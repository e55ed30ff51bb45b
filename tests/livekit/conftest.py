"""Real LiveKit servers: one shared by a module, or as many of its own as a test needs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from tests.livekit.guarded import GuardedWorker
from tests.livekit.server import LiveKitServer
from tests.livekit.versions import VERSIONS, python_with


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


@pytest.fixture(scope="module", params=VERSIONS)
def python(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter for each livekit-agents that the guard is tested with."""
    return python_with(request.param, tmp_path_factory)


@pytest.fixture(scope="module")
def worker(
    request: pytest.FixtureRequest,
    livekit_server: LiveKitServer,
    python: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[GuardedWorker]:
    """A guarded worker for all tests of a module, which has its script in ``SCRIPT``."""
    script = tmp_path_factory.mktemp("worker") / "script.py"
    script.write_text(request.module.SCRIPT)
    with (
        tempfile.TemporaryDirectory(prefix="lks-", dir="/tmp") as runtime,
        GuardedWorker(script, Path(runtime) / "guard.sock", livekit_server, python=python) as worker,
    ):
        yield worker


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
