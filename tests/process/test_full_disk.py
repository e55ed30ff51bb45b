"""A full disk stops no worker, and what a worker then lacks is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.process.mounts import python_on, unshare

pytestmark = pytest.mark.skipif(unshare() is None, reason="may not mount anything here")

_START = """
import asyncio, os
from pathlib import Path
from supervisor.core.ports import ProcessSpec, SpawnFailed
from supervisor.process.host import PosixProcessHost
folder = Path({folder!r})
marks = (("LIVEKIT_SUPERVISOR_STATE", str(folder / "state")),)
def spec(*argv):
    return ProcessSpec("a", argv, "/", (*os.environ.items(), *marks), str(folder / "a.log"), marks)
def fill():
    with open(folder / "ballast", "wb", buffering=0) as file:
        try:
            while True: file.write(bytes(4096))
        except OSError as error:
            print(error.strerror)
async def main():
    host = PosixProcessHost(folder / "state")
"""


def _on_small_disk(folder: Path, body: str, options: str = "size=1m,mode=0700") -> list[str]:
    indented = "".join(f"    {line}\n" for line in body.strip().splitlines())
    code = f"{_START.format(folder=str(folder))}{indented}asyncio.run(main())\n"
    return python_on(folder, "tmpfs", options, code).splitlines()


def test_a_worker_whose_log_has_no_room_goes_on(tmp_path: Path) -> None:
    """Its own writes fail, as any program's do; it is neither stopped nor blocked by us."""
    body = """
handle = host.spawn(spec("sh", "-c", "while :; do echo line; sleep 0.01; done 2>/dev/null"))
fill()
await asyncio.sleep(0.2)
print(handle.signal(0), await handle.kill_tree(), (await handle.wait()).signal)
"""
    assert _on_small_disk(tmp_path, body) == ["No space left on device", "True () 9"]


def test_a_worker_starts_on_a_full_disk(tmp_path: Path) -> None:
    body = """
await host.spawn(spec("true")).wait()
(folder / "state" / "agents" / "a.pid").unlink()
fill()
handle = host.spawn(spec("sleep", "300"))
print(handle.lacking)
other = PosixProcessHost(folder / "state").adopt(spec("sleep", "300"))
print(other is not None and other.pid == handle.pid)
try:
    host.spawn(spec("true"))
except SpawnFailed as error:
    print(error)
await handle.kill_tree()
"""
    lines = _on_small_disk(tmp_path, body)
    assert lines[:3] == [
        "No space left on device",
        "its pidfile cannot be written: No space left on device",
        "True",
    ]
    assert "must not be started again: by process" in lines[3]


def test_a_worker_starts_though_its_log_cannot_be_made(tmp_path: Path) -> None:
    body = """
handle = host.spawn(spec("sleep", "300"))
print(handle.lacking)
await handle.kill_tree()
"""
    # The root, state, agents and the lock: no room for the log, nor for the pidfile.
    log = tmp_path / "a.log"
    assert _on_small_disk(tmp_path, body, "nr_inodes=4,mode=0700") == [
        f"its output is lost: {log}: No space left on device; "
        "its pidfile cannot be written: No space left on device"
    ]


def test_no_lock_no_worker(tmp_path: Path) -> None:
    body = """
try:
    host.spawn(spec("sleep", "300"))
except SpawnFailed as error:
    print(error)
"""
    lock = tmp_path / "state" / "agents" / "a.lock"
    assert _on_small_disk(tmp_path, body, "nr_inodes=3,mode=0700") == [
        f"its lock cannot be used: {lock}: No space left on device"
    ]


def test_a_daemon_that_finds_no_room_for_its_files_says_so(tmp_path: Path, runtime_dir: Path) -> None:
    disk, config = tmp_path / "disk", tmp_path / "config.yaml"
    disk.mkdir()
    config.write_text(
        f"livekit: {{url: 'ws://127.0.0.1:9', api_key: devkey, api_secret: {'s' * 40}}}\n"
        "agents: [{id: a, command: [sleep, '600']}]\n"
        f"paths: {{state: {disk}/state, runtime: {runtime_dir}, logs: {tmp_path}/logs}}\n"
    )
    code = f"""
import subprocess, sys
command = [sys.executable, "-m", "supervisor", "--config", {str(config)!r}, "run"]
done = subprocess.run(command, capture_output=True, text=True)
print(done.returncode, done.stderr, end="")
"""
    told = python_on(disk, "tmpfs", "size=16k,mode=0700", code)
    assert told == f"2 livekit-supervisor: {disk}/state: No space left on device\n"
