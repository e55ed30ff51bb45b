"""Daemon and worker are killed at random moments, over and over: never two workers, never none for long."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from supervisor.process import lock
from supervisor.process.instance import running_daemon
from tests.process.programs import REPOSITORY, Bench, is_alive, until
from tests.scale import times

ROUNDS = times(20, soak=200)
LONGEST_GAP = 5.0
"""Seconds; a start of the daemon on a busy machine included.  There is no backoff here."""

# Whoever finds another one alive says so.  A dying one may need a moment to let go.
_WORKER = """
import fcntl, os, sys, time
file = open("single", "a")
for _ in range(100):
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        break
    except BlockingIOError:
        time.sleep(0.001)
else:
    open("DOUBLE", "a").write(f"{os.getpid()}\\n")
if os.fork() == 0:
    os.setsid()
    time.sleep(600)
open("up", "w").write(f"{os.getpid()}\\n")
time.sleep(600)
"""

_DAEMON = """
import asyncio, os, sys
from pathlib import Path
from supervisor.core.ports import ProcessSpec, SpawnFailed
from supervisor.process.host import PosixProcessHost
from supervisor.process.instance import InstanceLock
state, worker, log = map(Path, sys.argv[1:])
lock = InstanceLock(state)
marks = (("LIVEKIT_SUPERVISOR_AGENT_ID", "agent-1"), ("LIVEKIT_SUPERVISOR_STATE", str(state)))
env = (*os.environ.items(), *marks)
spec = ProcessSpec("agent-1", (sys.executable, str(worker)), str(state.parent), env, str(log), marks)
async def main():
    host = PosixProcessHost(state)
    while True:
        handle = host.adopt(spec)
        if handle is None:
            await host.clear_leftovers(spec)
            handle = host.spawn(spec)
        await handle.wait()
        await handle.kill_tree()
asyncio.run(main())
"""


@pytest.mark.soak
def test_random_kills(bench: Bench) -> None:
    worker = bench.folder / "worker.py"
    worker.write_text(_WORKER)
    up = bench.folder / "up"
    daemon = _start(bench, worker)
    pids: set[int] = set()
    for _ in range(ROUNDS):
        time.sleep(random.expovariate(8))
        victims = random.choice([("daemon",), ("worker",), ("daemon", "worker"), ("worker", "daemon")])
        for victim in victims:
            if victim == "daemon":
                daemon.kill()
                daemon.wait()
            else:
                _kill_worker(bench)
        if daemon.poll() is not None:
            up.unlink(missing_ok=True)
            daemon = _start(bench, worker)
        started = time.monotonic()
        until(lambda: _workers(bench))
        assert time.monotonic() - started < LONGEST_GAP
        assert not (bench.folder / "DOUBLE").exists()
        pids.update(_workers(bench))
    until(lambda: running_daemon(bench.state) == daemon.pid)
    daemon.kill()
    daemon.wait()
    assert len(pids) > ROUNDS / 8
    assert not (bench.folder / "DOUBLE").exists()


def _start(bench: Bench, worker: Path) -> subprocess.Popen[bytes]:
    arguments = [str(bench.state), str(worker), str(bench.log)]
    return subprocess.Popen([sys.executable, "-c", _DAEMON, *arguments], cwd=REPOSITORY)


def _workers(bench: Bench) -> list[int]:
    """Those that lead a session and hold the lock; a child of theirs may hold it, too."""
    return [pid for pid in lock.holders(bench.lock) if is_alive(pid) and _leads(pid)]


def _leads(pid: int) -> bool:
    try:
        return os.getsid(pid) == pid
    except ProcessLookupError:
        return False


def _kill_worker(bench: Bench) -> None:
    for pid in _workers(bench)[:1]:
        os.kill(pid, signal.SIGKILL)
