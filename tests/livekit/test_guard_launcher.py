"""A worker that cannot run guarded does not run, and says why: exit code, standard error, and the daemon."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.livekit.guarded import AGENT, GuardedWorker, StandInDaemon

FAILURES = [
    pytest.param("print('done')\n", 78, "without having run a server", id="nothing to run"),
    pytest.param("raise SystemExit(0)\n", 78, "without having run a server", id="exits at once with 0"),
    pytest.param("raise SystemExit(3)\n", 3, "exited with 3", id="exits at once with 3"),
    pytest.param("import no_such_module\n", 1, "ModuleNotFoundError", id="does not import"),
    pytest.param("def broken(:\n", 1, "SyntaxError", id="does not parse"),
    pytest.param(
        "from livekit.agents import AgentServer\nserver = AgentServer()\n"
        "async def enter(ctx): ...\nserver._entrypoint_fnc = enter\n",
        78,
        "the script has replaced AgentServer._entrypoint_fnc",
        id="a server that went round the guard",
    ),
    pytest.param(
        "from livekit.agents import AgentServer\nserver = AgentServer()\n",
        70,
        "No RTC session entrypoint",
        id="a server without an entry function",
    ),
]


@pytest.fixture
async def daemon(runtime_dir: Path) -> AsyncIterator[StandInDaemon]:
    async with StandInDaemon(runtime_dir / "guard.sock") as daemon:
        yield daemon


@pytest.mark.parametrize(("script", "status", "reason"), FAILURES)
async def test_a_script_that_runs_no_worker_fails_with_the_reason(
    script: str, status: int, reason: str, daemon: StandInDaemon, tmp_path: Path
) -> None:
    (tmp_path / "script.py").write_text(script)
    with GuardedWorker(tmp_path / "script.py", daemon.path, None) as worker:
        [failed] = await daemon.until(lambda: [m for p in daemon.peers for m in p.heard("failed")], 30)
        assert worker.process.wait(timeout=30) == status
    assert reason in str(failed["reason"])
    assert reason in worker.log.read_text()


def _run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agent_guard", *arguments],
        env={**os.environ, "PYTHONPATH": str(AGENT), **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_by_hand_it_says_what_is_missing(tmp_path: Path) -> None:
    assert _run().returncode == 2
    alone = _run("--", str(tmp_path / "none.py"))
    assert alone.returncode == 78
    assert alone.stderr == (
        "agent_guard: LIVEKIT_SUPERVISOR_AGENT_ID is not set; workers are started by the supervisor\n"
    )
    lock = _run(str(tmp_path / "none.py"), LIVEKIT_SUPERVISOR_LOCK_FD="77")
    assert lock.returncode == 78
    assert "LIVEKIT_SUPERVISOR_LOCK_FD" in lock.stderr


def test_without_livekit_agents_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "livekit.py").write_text("raise ImportError('not installed')\n")
    missing = _run(
        str(tmp_path / "none.py"),
        PYTHONPATH=f"{AGENT}:{tmp_path}",
        LIVEKIT_SUPERVISOR_AGENT_ID="a",
        LIVEKIT_SUPERVISOR_SOCKET=str(tmp_path / "none.sock"),
    )
    assert missing.returncode == 78
    assert "this Python cannot guard a LiveKit worker" in missing.stderr


FORKS = """
import os, subprocess, sys, time
{fork}
print("READY", flush=True)
time.sleep(60)
"""
DESCENDANTS = [
    pytest.param("subprocess.Popen(['sleep', '60'], close_fds=False)", id="exec"),
    pytest.param("if os.fork() == 0:\n    time.sleep(60)", id="fork"),
    pytest.param("if os.fork() == 0:\n    os.fork()\n    time.sleep(60)", id="fork of a fork"),
]


@pytest.mark.parametrize("fork", DESCENDANTS)
def test_no_descendant_keeps_the_lock(fork: str, tmp_path: Path) -> None:
    script, path = tmp_path / "script.py", tmp_path / "agent.lock"
    script.write_text(FORKS.format(fork=fork))
    ours = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(ours, fcntl.LOCK_EX)
    with GuardedWorker(script, tmp_path / "none.sock", None, keep_fd=ours) as worker:
        os.close(ours)
        while "READY" not in worker.log.read_text():
            assert worker.process.poll() is None, worker.log.read_text()
        again = os.open(path, os.O_RDWR)
        with pytest.raises(BlockingIOError):
            fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
        worker.process.kill()
        worker.process.wait(timeout=10)
        fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(again)
