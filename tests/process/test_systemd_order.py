"""The service without systemd: its notify socket, and its commands in the order in which systemd runs them.

So it is tested also where no systemd can be booted; see test_systemd_boot.py for the real one.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.ports import free_port
from tests.process.programs import PATIENCE, REPOSITORY, until

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"


class Unit:
    """ExecStart, ExecReload and ExecStopPost, as ``install-service`` writes them."""

    def __init__(self, folder: Path, runtime: Path) -> None:
        self.folder, self.state, self.runtime = folder, folder / "state", runtime
        self.config = folder / "config.yaml"
        self.config.write_text(
            f"livekit: {{url: 'ws://127.0.0.1:{free_port()}', api_key: devkey, api_secret: {'s' * 40}}}\n"
            "agents:\n"
            "  - {id: steady, command: [sleep, '600'], stop: {drain: 7s, kill: 1s}}\n"
            "  - id: stubborn\n    stop: {drain: 1s, kill: 3s}\n"
            f'    command: [{sys.executable}, -c, "{STUBBORN}"]\n'
            f"http: {{listen: '127.0.0.1:{free_port()}'}}\n"
            f"paths: {{state: {self.state}, runtime: {runtime}, logs: {folder}/logs}}\n"
        )
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.listener.bind(str(folder / "notify"))
        self.listener.settimeout(PATIENCE)
        self.daemon: subprocess.Popen[bytes] | None = None
        self._commands = self._read_unit()

    def _read_unit(self) -> dict[str, list[str]]:
        program = self.folder / "livekit-supervisor"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m supervisor "$@"\n')
        program.chmod(0o755)
        shown = self._run(
            [
                sys.executable,
                "-m",
                "supervisor",
                "--config",
                str(self.config),
                "install-service",
                "--program",
                str(program),
                "--json",
            ]
        )
        unit = json.loads(shown.stdout)["files"][0]["content"]
        lines = (line.partition("=") for line in unit.splitlines() if line.startswith("Exec"))
        return {key: shlex.split(value) for key, _, value in lines}

    def _run(self, command: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=REPOSITORY,
            env={**self._environment(), **variables},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(REPOSITORY)}

    def start(self, *, ready: bool = True) -> None:
        notify = {"NOTIFY_SOCKET": str(self.folder / "notify"), "WATCHDOG_USEC": "2000000"}
        with (self.folder / "daemon.log").open("ab") as log:
            self.daemon = subprocess.Popen(
                self._commands["ExecStart"],
                cwd=REPOSITORY,
                env={**self._environment(), **notify},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        if ready:
            self.hear(lambda message: message == "READY=1")

    def stop_post(self, **variables: str) -> str:
        """``variables``: what systemd tells of the daemon's end."""
        done = self._run(self._commands["ExecStopPost"], **variables)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def reload(self) -> subprocess.CompletedProcess[str]:
        return self._run(self._commands["ExecReload"])

    def ended(self) -> int:
        assert self.daemon is not None
        code = self.daemon.wait(PATIENCE)
        self.daemon = None
        return code

    def hear(self, wanted: Callable[[str], bool]) -> str:
        """The next message of that kind."""
        while True:
            message = self.listener.recv(4096).decode()
            if wanted(message):
                return message

    def workers(self) -> dict[str, int]:
        """By agent ID, as soon as all run."""
        deadline = time.monotonic() + PATIENCE
        while True:
            done = self._run(
                [sys.executable, "-m", "supervisor", "--config", str(self.config), "status", "--json"]
            )
            agents = json.loads(done.stdout)["agents"] if done.stdout else []
            found = {a["id"]: a["pid"] for a in agents if a["pid"] is not None}
            if len(found) == 2:
                return found
            assert time.monotonic() < deadline, done.stderr

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            if self.daemon is not None:
                self.daemon.kill()
                self.daemon.wait()
        self._run([sys.executable, "-m", "supervisor", "--config", str(self.config), "clean-up"])
        self.listener.close()


@pytest.fixture
def unit(tmp_path: Path, runtime_dir: Path) -> Iterator[Unit]:
    unit = Unit(tmp_path, runtime_dir)
    yield unit
    unit.close()


def alive(pids: dict[str, int]) -> list[int]:
    return [
        pid for pid in pids.values() if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"
    ]


def test_ready_status_watchdog_and_an_orderly_stop(unit: Unit) -> None:
    unit.start()
    status = unit.hear(lambda m: m.startswith("STATUS=2 of 2 agents ready"))
    assert status.endswith("LiveKit not reached")
    for _ in range(3):
        unit.hear(lambda m: m == "WATCHDOG=1")
    workers = unit.workers()
    assert unit.daemon is not None
    unit.daemon.send_signal(signal.SIGTERM)
    stopping = unit.hear(lambda m: m.startswith("STOPPING=1"))
    # The longest drain and kill, and 15 s: more than a unit from before a reload might allow.
    assert stopping == "STOPPING=1\nEXTEND_TIMEOUT_USEC=23000000"
    assert unit.ended() == 0
    assert alive(workers) == []
    assert unit.stop_post() == ""


def test_after_a_crash_the_clean_up_ends_nobody_and_the_next_daemon_has_them(unit: Unit) -> None:
    unit.start()
    workers = unit.workers()
    assert unit.daemon is not None
    unit.daemon.kill()
    unit.ended()
    assert unit.stop_post() == ""
    assert len(alive(workers)) == 2
    unit.start()
    assert unit.workers() == workers


def test_after_a_handoff_the_clean_up_ends_nobody(unit: Unit) -> None:
    unit.start()
    workers = unit.workers()
    unit._run([sys.executable, "-m", "supervisor", "--config", str(unit.config), "handoff"])
    assert unit.ended() == 0
    assert unit.stop_post() == ""
    assert len(alive(workers)) == 2


def test_a_daemon_killed_while_it_stops_leaves_the_rest_to_the_clean_up(unit: Unit) -> None:
    unit.start()
    workers = unit.workers()
    assert unit.daemon is not None
    unit.daemon.send_signal(signal.SIGTERM)
    unit.hear(lambda m: m.startswith("STOPPING=1"))
    unit.daemon.kill()
    unit.ended()
    assert str(workers["stubborn"]) in unit.stop_post()
    assert alive(workers) == []
    assert unit.stop_post() == ""


def test_a_stop_while_it_starts_ends_what_it_takes_over(unit: Unit) -> None:
    unit.start()
    workers = unit.workers()
    assert unit.daemon is not None
    unit.daemon.kill()
    unit.ended()
    early = unit.runtime / "guard.sock"
    early.unlink()
    unit.start(ready=False)
    until(early.exists)  # before the workers are looked for, and long before it is ready
    unit.daemon.send_signal(signal.SIGHUP)
    unit.daemon.send_signal(signal.SIGTERM)
    assert unit.ended() == 0
    assert alive(workers) == []


def test_a_stop_before_it_can_hear_of_one_is_left_to_the_clean_up(unit: Unit) -> None:
    unit.start()
    workers = unit.workers()
    assert unit.daemon is not None
    unit.daemon.kill()
    unit.ended()
    timeout = {"SERVICE_RESULT": "timeout", "EXIT_CODE": "killed", "EXIT_STATUS": "TERM"}
    assert unit.stop_post(**timeout) == ""
    crash = {"SERVICE_RESULT": "core-dump", "EXIT_CODE": "dumped", "EXIT_STATUS": "ABRT"}
    assert unit.stop_post(**crash) == ""
    assert len(alive(workers)) == 2
    unit.start(ready=False)
    unit.daemon.terminate()  # Python is being loaded
    assert unit.ended() == -signal.SIGTERM
    ended = unit.stop_post(SERVICE_RESULT="success", EXIT_CODE="killed", EXIT_STATUS="TERM")
    assert all(str(pid) in ended for pid in workers.values())
    assert alive(workers) == []


def test_the_clean_up_leaves_a_running_daemon_alone(unit: Unit) -> None:
    unit.start()
    workers = unit.workers()
    (unit.state / "stopping").touch(mode=0o600)
    assert unit.stop_post() == ""
    by_hand = unit._run([sys.executable, "-m", "supervisor", "--config", str(unit.config), "clean-up"])
    assert by_hand.returncode == 4
    assert len(alive(workers)) == 2


def test_reload_tells_of_a_bad_file_by_its_exit_code(unit: Unit) -> None:
    unit.start()
    unit.workers()
    good = unit.config.read_text()
    unit.config.write_text(f"{good}unknown: key\n")
    failed = unit.reload()
    assert failed.returncode == 2
    assert "unknown: is unknown" in failed.stderr
    unit.config.write_text(good)
    assert unit.reload().returncode == 0
