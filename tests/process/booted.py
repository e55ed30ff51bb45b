"""A booted systemd of the test's own: namespaces of its own, this machine's files under a layer of its own.

It sees our files and changes none of them, has no network but loopback, and is gone, with everything it
started, when its first process is killed.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tests.process.programs import REPOSITORY

T = TypeVar("T")

SYSTEMD = "/lib/systemd/systemd"
PACKAGES = sysconfig.get_path("purelib")
PYTHON = f"/opt/lks/base/{Path(sys.executable).resolve().relative_to(sys.base_prefix)}"
"""There; with PYTHONPATH set to :data:`PYTHONPATH`."""
PYTHONPATH = "/opt/lks/src:/opt/lks/packages"
LIBRARIES = "/opt/lks/base/lib"
"""For LD_LIBRARY_PATH, where Python is a shared library of its own."""
PATIENCE = 60.0

# $1: an empty folder; $2: the checkout; $3: Python's packages; $4: Python itself, maybe in somebody's home.
# Nothing is started but what a test starts.
BOOT = r"""
set -eu
folder=$1
mount -t tmpfs tmpfs "$folder"
mkdir "$folder/upper" "$folder/work" "$folder/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$folder/upper,workdir=$folder/work" "$folder/root"
cd "$folder/root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t tmpfs tmpfs sys/fs/cgroup -o mode=755
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs tmpfs run -o mode=755
mount -t tmpfs tmpfs dev -o mode=755
for name in null zero full random urandom tty; do
    touch "dev/$name"
    mount --bind "/dev/$name" "dev/$name"
done
mkdir dev/pts dev/shm
mount -t devpts devpts dev/pts -o newinstance,ptmxmode=0666
ln -s pts/ptmx dev/ptmx
mount -t tmpfs tmpfs dev/shm
mkdir -p opt/lks/bin opt/lks/src opt/lks/packages opt/lks/base
mount --rbind "$2" opt/lks/src
mount --rbind "$3" opt/lks/packages
mount --rbind "$4" opt/lks/base
rm -rf etc/systemd/system/*
for unit in tests.target sysinit.target basic.target network-online.target; do
    printf '[Unit]\nDefaultDependencies=no\n' > "etc/systemd/system/$unit"
done
for unit in journald.service journald.socket journald-dev-log.socket journald-audit.socket \
    udevd.service udevd-kernel.socket udevd-control.socket; do
    ln -s /dev/null "etc/systemd/system/systemd-$unit"
done
ip link set lo up
mkdir old
pivot_root . old
umount -l /old
mount --make-rshared /
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --unit=tests.target \
    --log-target=console --log-level=warning < /dev/null
"""


@functools.cache
def why_not() -> str | None:
    """None where a systemd can be booted; else what is in its way."""
    if not os.access(SYSTEMD, os.X_OK):
        return "no systemd is installed"
    if os.geteuid() != 0:
        return "only root may mount and make control groups"
    if _control_groups() is None:
        return "no control groups of version 2 are mounted"
    probe = [
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "--cgroup",
        "--net",
        "mount",
        "-t",
        "proc",
        "proc",
        "/proc",
    ]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        return "this machine gives us no namespaces"
    return None


def _control_groups() -> Path | None:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind == "cgroup2" and os.access(where, os.W_OK):
            own = next(r for r in Path("/proc/self/cgroup").read_text().splitlines() if r.startswith("0::"))
            return Path(where) / own.removeprefix("0::").lstrip("/")
    return None


class Booted:
    """One machine.  ``run`` runs a command on it as root."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        groups = _control_groups()
        assert groups is not None
        self._group = groups / f"livekit-supervisor-test-{os.getpid()}"
        self._log = folder / "console.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._init = 0

    def start(self) -> None:
        self._group.mkdir()
        (self.folder / "machine").mkdir()
        join = f'echo $$ > {self._group}/cgroup.procs; exec "$@"'
        namespaces = ("--mount", "--pid", "--fork", "--uts", "--ipc", "--cgroup", "--net")
        unshare = ("unshare", *namespaces, "--kill-child=SIGKILL", "--propagation", "private")
        boot = (
            "sh",
            "-c",
            BOOT,
            "boot",
            str(self.folder / "machine"),
            str(REPOSITORY),
            PACKAGES,
            sys.base_prefix,
        )
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["sh", "-c", join, "join", *unshare, *boot],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.until(self._has_booted)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()  # with it goes its child, the first process there; with that, all others
            self._process.wait(PATIENCE)
        deadline = time.monotonic() + 10
        while self._group.exists() and time.monotonic() < deadline:
            for group in sorted((p for p in self._group.rglob("*") if p.is_dir()), reverse=True):
                with contextlib.suppress(OSError):
                    group.rmdir()
            with contextlib.suppress(OSError):
                self._group.rmdir()
            time.sleep(0.02)
        assert not self._group.exists(), "control groups are left"
        shutil.rmtree(self.folder / "machine", ignore_errors=True)

    def run(self, *command: str, check: bool = True, stdin: str = "") -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["nsenter", "--target", str(self._init), "--all", "env", "-i", f"PATH={os.defpath}", *command],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0 or not check, f"{command}: {done.stdout}{done.stderr}{self.console()}"
        return done

    def write(self, path: str, text: str, mode: str = "0644") -> None:
        self.run(
            "sh",
            "-c",
            'umask 077; mkdir -p "${1%/*}"; cat > "$1"; chmod "$2" "$1"',
            "sh",
            path,
            mode,
            stdin=text,
        )

    def show(self, unit: str, *properties: str) -> list[str]:
        """The values of a unit's properties, in that order."""
        told = self.run("systemctl", "show", unit, *(f"--property={p}" for p in properties)).stdout
        values = dict(line.partition("=")[::2] for line in told.splitlines())
        return [values[p] for p in properties]

    def until(self, condition: Callable[[], T], timeout: float = PATIENCE) -> T:
        """Wait until it is true, and give what it was."""
        deadline = time.monotonic() + timeout
        while True:
            value = condition()
            if value:
                return value
            assert time.monotonic() < deadline, f"{condition} not within {timeout} s\n{self.console()}"
            time.sleep(0.05)

    def console(self) -> str:
        return self._log.read_text(errors="replace")[-4000:]

    def _has_booted(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"it did not boot:\n{self.console()}"
        if not self._init:
            children = (
                Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
            )
            if not children or Path(f"/proc/{children[0]}/comm").read_text().strip() != "systemd":
                return False
            self._init = int(children[0])
        return self.run("systemctl", "is-system-running", check=False).stdout.strip() in (
            "running",
            "degraded",
        )
