"""Supervisors that are measured side by side: ours, its peers, and a bare loop as the physical limit.

One rule: each runs the same program and is configured to be as quick as it can be; the peers live in an
environment of their own, made with pip in a temporary folder, never in ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import venv
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.ground import Ground, livekit, program, short_folder, supervised
from tests.livekit.supervised import Supervised

SUPERVISORD = "supervisor==4.3.0"
CIRCUS = "circus==0.19.0"


@dataclass(frozen=True, slots=True)
class Running:
    """One supervisor at work."""

    pid: int
    subject: Supervised | None = None
    """Ours, when it is ours."""


Start = Callable[[Ground, Path, int], AbstractAsyncContextManager[Running]]


@dataclass(frozen=True, slots=True)
class Contestant:
    """``start`` runs it over that many workers of the script; ``period`` is how often it looks around."""

    name: str
    start: Start
    period: float = 0.0


# --- ours -----------------------------------------------------------------------------------------


def worker(script: Path, number: int) -> dict[str, Any]:
    """A ``command:`` agent whose every death is the first after ``stable_after``: no backoff."""
    return {
        "id": f"worker-{number}",
        "command": ["/bin/sh", str(script)],
        "cwd": str(script.parent),
        "restart": {"initial": "1ms", "jitter": 0, "stable_after": "1ms"},
        "stop": {"drain": "0s", "kill": "2s"},
    }


@contextlib.asynccontextmanager
async def _ours(ground: Ground, script: Path, workers: int) -> AsyncIterator[Running]:
    async with livekit(ground) as server:
        agents = [worker(script, number) for number in range(workers)]
        async with supervised(ground, server, agents) as subject:
            yield Running(subject.pid, subject)


OURS = Contestant("livekit-supervisor", _ours)


# --- peers ----------------------------------------------------------------------------------------


async def install_peers(ground: Ground) -> Path:
    """The folder of the programs of supervisord and circus."""
    folder = ground.folder / "peers"
    if not folder.exists():
        ground.progress(f"installing {SUPERVISORD} and {CIRCUS} into an environment of their own")
        await asyncio.to_thread(venv.create, folder, with_pip=True, symlinks=True)
        pip = await asyncio.create_subprocess_exec(
            folder / "bin" / "python",
            *("-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
            *(SUPERVISORD, CIRCUS, "setuptools<81"),
            stdin=asyncio.subprocess.DEVNULL,
        )
        assert await pip.wait() == 0, "the peers could not be installed"
    return folder / "bin"


_SUPERVISORD = """\
[supervisord]
nodaemon = true
logfile = {folder}/supervisord.log
pidfile = {folder}/supervisord.pid
loglevel = error

[program:worker]
command = /bin/sh {script}
process_name = %(process_num)d
numprocs = {workers}
autorestart = true
startsecs = 0
stopwaitsecs = 2
redirect_stderr = true
stdout_logfile = {folder}/worker-%(process_num)d.log
"""

_CIRCUS = """\
[circus]
check_delay = {check_delay}
endpoint = ipc://{folder}/endpoint
pubsub_endpoint = ipc://{folder}/pubsub
loglevel = error
warmup_delay = 0
"""

_CIRCUS_WATCHER = """
[watcher:worker-{number}]
cmd = /bin/sh {script}
numprocesses = 1
copy_env = True
graceful_timeout = 2
stdout_stream.class = FileStream
stdout_stream.filename = {folder}/worker-{number}.log
"""


def supervisord(programs: Path) -> Contestant:
    @contextlib.asynccontextmanager
    async def start(ground: Ground, script: Path, workers: int) -> AsyncIterator[Running]:
        with short_folder() as folder:
            config = folder / "supervisord.conf"
            config.write_text(_SUPERVISORD.format(folder=folder, script=script, workers=workers))
            with program([programs / "supervisord", "-c", config], folder / "out.log") as process:
                yield Running(process.pid)

    return Contestant("supervisord", start, period=1.0)


def circus(programs: Path, check_delay: float) -> Contestant:
    @contextlib.asynccontextmanager
    async def start(ground: Ground, script: Path, workers: int) -> AsyncIterator[Running]:
        with short_folder() as folder:
            config = folder / "circus.ini"
            watchers = (
                _CIRCUS_WATCHER.format(number=number, script=script, folder=folder)
                for number in range(workers)
            )
            head = _CIRCUS.format(check_delay=check_delay, folder=folder)
            config.write_text("".join((head, *watchers)))
            with program([programs / "circusd", config], folder / "out.log") as process:
                yield Running(process.pid)

    return Contestant(f"circus, check_delay = {check_delay:g} s", start, period=check_delay)


# --- the physical limit ---------------------------------------------------------------------------

_LOOP = """
import os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
try:
    while True:
        child = os.posix_spawn("/bin/sh", ["/bin/sh", sys.argv[1]], os.environ)
        os.waitid(os.P_PID, child, os.WEXITED)
finally:
    os.kill(child, signal.SIGKILL)
"""


@contextlib.asynccontextmanager
async def _bare_loop(ground: Ground, script: Path, workers: int) -> AsyncIterator[Running]:
    assert workers == 1
    with program([sys.executable, "-c", _LOOP, script], ground.folder / "loop.log", os.environ) as process:
        yield Running(process.pid)


LIMIT = Contestant("limit: a bare loop of waitid and vfork", _bare_loop)
