"""One daemon per state directory, and clear words about directories that cannot be used."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from supervisor.core.ports import ProcessSpec
from supervisor.process import lock
from supervisor.process.files import StateDirectoryError, private_directory
from supervisor.process.instance import AlreadyRunning, InstanceLock, is_running, running_daemon
from tests.process.mounts import python_on, unshare
from tests.process.programs import PATIENCE, REPOSITORY, Bench, is_alive

_DAEMON = """
import os, sys, time
from pathlib import Path
from supervisor.process.instance import AlreadyRunning, InstanceLock
state, go = map(Path, sys.argv[1:])
print("ready", flush=True)
while not go.exists(): time.sleep(0.001)
try:
    lock = InstanceLock(state)
except AlreadyRunning as error:
    print("refused", error.pid, flush=True)
    sys.exit(4)
print("holds", os.getpid(), flush=True)
sys.stdin.read()
"""


def test_of_twenty_daemons_one_runs(tmp_path: Path) -> None:
    state, go = tmp_path / "deep" / "state", tmp_path / "go"
    daemons = [
        subprocess.Popen(
            [sys.executable, "-c", _DAEMON, str(state), str(go)],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(20)
    ]
    for daemon in daemons:
        assert daemon.stdout is not None
        assert daemon.stdout.readline() == "ready\n"
    go.touch()
    answers = [d.stdout.readline().split() for d in daemons if d.stdout is not None]
    (holder,) = [answer[1] for answer in answers if answer[0] == "holds"]
    assert [a[1] for a in answers if a[0] == "refused"] == [holder] * 19
    assert running_daemon(state) == int(holder)
    codes = []
    for daemon in daemons:
        daemon.communicate(timeout=PATIENCE)
        codes.append(daemon.returncode)
    assert sorted(codes) == [0] + [4] * 19
    assert not is_running(state)
    InstanceLock(state).release()


def test_the_second_one_is_told_by_whom(tmp_path: Path) -> None:
    first = InstanceLock(tmp_path)
    assert is_running(tmp_path)
    with pytest.raises(
        AlreadyRunning, match=f"already running on {tmp_path} .process {os.getpid()}."
    ) as caught:
        InstanceLock(tmp_path)
    assert caught.value.pid == os.getpid()
    first.release()
    assert not is_running(tmp_path)
    assert not (tmp_path / "daemon.pid").exists()
    InstanceLock(tmp_path).release()


@pytest.mark.parametrize("content", [b"", b"\0" * 5000, b'{"pid": 1}', b"1"])
def test_a_spoilt_pidfile_changes_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "daemon.pid").write_bytes(content)
    first = InstanceLock(tmp_path)
    (tmp_path / "daemon.pid").write_bytes(content)
    with pytest.raises(AlreadyRunning) as caught:
        InstanceLock(tmp_path)
    assert caught.value.pid is None
    first.release()


def test_no_worker_has_the_daemon_s_lock(bench: Bench, sleeper: ProcessSpec) -> None:
    code = f"""
import os
from pathlib import Path
from supervisor.core.ports import ProcessSpec
from supervisor.process.host import PosixProcessHost
from supervisor.process.instance import InstanceLock
state = Path({str(bench.state)!r})
lock = InstanceLock(state)
marks = (("LIVEKIT_SUPERVISOR_STATE", str(state)),)
spec = ProcessSpec("a", ("sleep", "300"), "/", (*os.environ.items(), *marks), {str(bench.log)!r}, marks)
print(PosixProcessHost(state).spawn(spec).pid, flush=True)
os.kill(os.getpid(), 9)
"""
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=False
    )
    assert result.returncode == -signal.SIGKILL
    assert is_alive(int(result.stdout))
    assert not is_running(bench.state)
    InstanceLock(bench.state).release()


def test_the_state_directory_is_private(tmp_path: Path) -> None:
    InstanceLock(tmp_path / "state").release()
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "state" / "daemon.lock").stat().st_mode & 0o777 == 0o600


def test_a_file_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateDirectoryError, match="file: is not a directory"):
        InstanceLock(tmp_path / "file")
    with pytest.raises(StateDirectoryError, match="cannot be created: Not a directory"):
        InstanceLock(tmp_path / "file" / "state")


def test_a_directory_that_others_may_write_to(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(0o777)
    with pytest.raises(StateDirectoryError, match="chmod go-w"):
        InstanceLock(tmp_path / "state")


def test_a_lock_that_is_a_link(tmp_path: Path) -> None:
    (tmp_path / "daemon.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StateDirectoryError, match=r"daemon\.lock: is a symbolic link"):
        InstanceLock(tmp_path)
    assert not (tmp_path / "elsewhere").exists()
    assert not is_running(tmp_path)


def test_a_lock_that_is_replaced_meanwhile_decides_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    old = lock.acquire(path)
    path.unlink()
    new = lock.acquire(path)
    with pytest.raises(lock.LockHeld):
        lock.acquire(path)
    os.close(old)
    os.close(new)
    assert not lock.is_held(path)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_another_user(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    with pytest.raises(StateDirectoryError, match=r"belongs to user 65534, not to us \(user 0\)"):
        private_directory(tmp_path)


@pytest.mark.skipif(unshare() is None, reason="may not mount anything here")
def test_a_read_only_directory(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from supervisor.process.instance import InstanceLock
for path in ({str(tmp_path)!r}, {str(tmp_path / "state")!r}):
    try:
        InstanceLock(Path(path))
    except Exception as error:
        print(type(error).__name__, error)
"""
    assert python_on(tmp_path, "tmpfs", "ro,mode=0700", code).splitlines() == [
        f"StateDirectoryError {tmp_path}: cannot be written to",
        f"StateDirectoryError {tmp_path}/state: cannot be created: Read-only file system",
    ]


@pytest.mark.skipif(unshare() is None, reason="may not mount anything here")
def test_a_full_directory(tmp_path: Path) -> None:
    """Without room for the lock there is a message; with the lock there, the daemon runs."""
    code = f"""
from pathlib import Path
from supervisor.process.instance import InstanceLock, is_running
state = Path({str(tmp_path)!r})
(state / "a").touch()
try:
    InstanceLock(state)
except Exception as error:
    print(type(error).__name__, error)
(state / "a").rename(state / "daemon.lock")
(state / "daemon.lock").chmod(0o600)
lock = InstanceLock(state)
print(is_running(state), (state / "daemon.pid").exists())
"""
    assert python_on(tmp_path, "tmpfs", "nr_inodes=2,mode=0700", code).splitlines() == [
        f"StateDirectoryError {tmp_path}/daemon.lock: No space left on device",
        "True False",
    ]
