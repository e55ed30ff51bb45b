"""What every part of the bench stands on: folders of its own, the report, and processes that are ended.

One rule: what is started here is gone when the block that started it ends, whatever happened inside.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.figures import Table
from tests.livekit.server import LiveKitServer
from tests.livekit.supervised import ROOT, Supervised

PATIENCE = 60.0


@dataclass(slots=True)
class Ground:
    """One run of the bench."""

    folder: Path
    quick: bool
    told: Callable[[str], None] = print
    tables: list[Table] = field(default_factory=list)

    def many(self, quick: int, full: int) -> int:
        return quick if self.quick else full

    def report(self, table: Table) -> None:
        self.tables.append(table)
        self.told(f"\n{table.text()}\n")

    def progress(self, text: str) -> None:
        print(f"  … {text}", file=sys.stderr, flush=True)

    def subfolder(self, name: str) -> Path:
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.folder))


@contextlib.contextmanager
def short_folder() -> Iterator[Path]:
    """For sockets: a Unix socket's path must stay under 108 bytes."""
    path = Path(tempfile.mkdtemp(prefix="lks-bench-", dir="/tmp"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


@contextlib.asynccontextmanager
async def livekit(
    ground: Ground, *, webhook_urls: Sequence[str] = (), log_level: str = "warn"
) -> AsyncIterator[LiveKitServer]:
    """A real LiveKit server."""
    server = LiveKitServer(ground.subfolder("livekit"), webhook_urls=webhook_urls, log_level=log_level)
    await asyncio.to_thread(server.start)
    try:
        yield server
    finally:
        await asyncio.to_thread(server.kill)


@contextlib.asynccontextmanager
async def supervised(
    ground: Ground,
    server: LiveKitServer,
    agents: list[dict[str, Any]],
    *,
    port: int | None = None,
    wait: bool = True,
    runtime: Path | None = None,
    **settings: Any,
) -> AsyncIterator[Supervised]:
    """A running daemon, logging as it does by default."""
    with short_folder() if runtime is None else contextlib.nullcontext(runtime) as runtime:
        log = {"level": "info", "format": "json"}
        subject = Supervised(
            ground.subfolder("daemon"), runtime, server, port=port, agents=agents, **{"log": log, **settings}
        )
        try:
            await subject.start(wait=wait)
            yield subject
        finally:
            await subject.close()


@contextlib.contextmanager
def program(
    argv: Sequence[str | os.PathLike[str]], log: Path, environ: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process beside us: ended by SIGTERM, and by SIGKILL 10 s later."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            argv, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environ
        )
    try:
        yield process
    finally:
        end(process)


def end(process: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> None:
    if process.poll() is None:
        process.send_signal(number)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def module(name: str, *arguments: str) -> list[str]:
    """The command line of a program of the bench."""
    return [sys.executable, "-m", f"tests.bench.{name}", *arguments]


async def until(condition: Callable[[], bool], what: str, timeout: float = PATIENCE) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what}"
        await asyncio.sleep(0.01)


async def result(path: Path, timeout: float = PATIENCE) -> Any:
    """What another program writes, as a whole, when it is done."""
    await until(path.exists, f"{path.name} was not written", timeout)
    return json.loads(await asyncio.to_thread(path.read_text))


def write_result(path: Path, value: object) -> None:
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(value))
    draft.replace(path)
