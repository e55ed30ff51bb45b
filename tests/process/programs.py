"""Programs for tests to supervise, and daemons to be killed."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from supervisor.core.ports import ProcessSpec
from supervisor.process.procfs import Identity, read_stat
from supervisor.process.variables import AGENT_ID, STATE

REPOSITORY = Path(__file__).parents[2]
PATIENCE = 20.0

AGENT = "agent-1"


class Bench:
    """Where the processes of one test live."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.log = folder / "agent-1.log"

    def spec(self, *argv: str, id: str = AGENT, command_hash: str = "hash-1") -> ProcessSpec:
        marks = ((AGENT_ID, id), (STATE, str(self.state)))
        return ProcessSpec(
            id=id,
            argv=argv,
            cwd=str(self.folder),
            env=(*os.environ.items(), *marks),
            log_path=str(self.log if id == AGENT else self.folder / f"{id}.log"),
            marks=marks,
            command_hash=command_hash,
        )

    def python(self, code: str, id: str = AGENT) -> ProcessSpec:
        return self.spec(sys.executable, "-c", code, id=id)

    def shell(self, code: str, id: str = AGENT) -> ProcessSpec:
        return self.spec("/bin/sh", "-c", code, id=id)

    @property
    def lock(self) -> Path:
        return self.state / "agents" / f"{AGENT}.lock"

    @property
    def pidfile(self) -> Path:
        return self.state / "agents" / f"{AGENT}.pid"


_DAEMON = """
import json, os, sys
from pathlib import Path
from supervisor.core.ports import ProcessSpec
from supervisor.process import pidfile
from supervisor.process.host import PosixProcessHost
given = json.loads(sys.argv[1])
pairs = {k: tuple(map(tuple, given["spec"].pop(k))) for k in ("env", "marks")}
spec = ProcessSpec(**given["spec"], **pairs)
"""


def run_daemon(bench: Bench, spec: ProcessSpec, code: str, check: int = 0) -> str:
    """Another process that does ``code`` with ``host`` and ``spec``; what it printed."""
    fields = {name: getattr(spec, name) for name in ProcessSpec.__slots__}
    result = subprocess.run(
        [
            sys.executable,
            "-c",
            f"{_DAEMON}\nhost = PosixProcessHost(Path(given['state']))\n{code}",
            _json(bench, fields),
        ],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert result.returncode == check
    return result.stdout


def _json(bench: Bench, fields: dict[str, object]) -> str:
    return json.dumps({"spec": fields, "state": str(bench.state)})


SPAWN_AND_DIE = "print(host.spawn(spec).pid, flush=True); os.kill(os.getpid(), 9)"
DIE_BEFORE_PIDFILE = "pidfile.write = lambda path, record: os.kill(os.getpid(), 9)\nhost.spawn(spec)"


def start(
    *argv: str, env: dict[str, str] | None = None, own_session: bool = False
) -> subprocess.Popen[bytes]:
    """A program that nobody supervises."""
    return subprocess.Popen(argv, env=env, start_new_session=own_session)


def until(condition: Callable[[], object], what: str = "") -> None:
    """Wait for a gate: fails when it does not open."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"never came: {what or condition}"
        time.sleep(0.005)


async def until_async(condition: Callable[[], object], what: str = "") -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"never came: {what or condition}"
        await asyncio.sleep(0.005)


def is_alive(pid: int) -> bool:
    stat = read_stat(pid)
    return stat is not None and stat.is_alive


def identity(pid: int) -> Identity:
    stat = read_stat(pid)
    assert stat is not None
    return stat.identity


def number_in(path: Path) -> int:
    """The number that a program writes to a file, and a newline after it."""
    until(lambda: path.exists() and path.read_text().endswith("\n"), f"a number in {path}")
    return int(path.read_text())
