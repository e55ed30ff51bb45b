"""The service on a real, booted systemd: boot, stop, restart, upgrade, SIGKILL, watchdog, reload.

Workers are programs that need no LiveKit; none is there, which must keep nothing from booting.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.process import booted
from tests.process.booted import Booted

pytestmark = pytest.mark.skipif(booted.why_not() is not None, reason=str(booted.why_not()))

UNIT = "livekit-supervisor"
CONFIG = "/etc/livekit-supervisor/config.yaml"
PROGRAM = "/opt/lks/bin/livekit-supervisor"

WRAPPER = f"""#!/bin/sh
export PYTHONPATH={booted.PYTHONPATH} LD_LIBRARY_PATH={booted.LIBRARIES}
exec {booted.PYTHON} -m supervisor "$@"
"""

OUTPUT = "[Service]\nStandardOutput=append:/var/log/service.log\nStandardError=inherit\n"

SETTINGS = """
livekit:
  url: ws://127.0.0.1:7880
  api_key: devkey
  api_secret_file: ${CREDENTIALS_DIRECTORY:-/etc/livekit-supervisor}/livekit-api-secret
agents:
  - {id: steady, command: [sleep, infinity], stop: {drain: 0, kill: 1s}}
  - {id: stubborn, command: [sh, -c, "trap '' TERM; while :; do sleep 1; done"], stop: {drain: 0, kill: 1s}}
paths:
  state: /var/lib/livekit-supervisor
  runtime: /run/livekit-supervisor
  logs: /var/log/livekit-supervisor
"""


class Service:
    """The installed service, with the commands that an operator types."""

    def __init__(self, machine: Booted) -> None:
        self.machine = machine

    def install(self) -> None:
        machine = self.machine
        machine.write(PROGRAM, WRAPPER, "0755")
        machine.write(CONFIG, SETTINGS)
        machine.write("/etc/livekit-supervisor/livekit-api-secret", "s" * 40, "0600")
        machine.write(f"/etc/systemd/system/{UNIT}.service.d/output.conf", OUTPUT)
        shown = self.command("install-service", "--program", PROGRAM, "--write", "--json")
        for command in json.loads(shown)["commands"]:
            if not command.startswith(("systemctl enable", "systemctl status")):
                machine.run("sh", "-c", command)

    def command(self, *arguments: str, check: bool = True) -> str:
        return self.machine.run(PROGRAM, "--config", CONFIG, *arguments, check=check).stdout

    def systemctl(self, verb: str, *, check: bool = True) -> int:
        done = self.machine.run("systemctl", verb, UNIT, check=False)
        assert done.returncode == 0 or not check, f"{verb}: {done.stderr}{self.log()}"
        return done.returncode

    def log(self) -> str:
        """What the daemon said last."""
        return self.machine.run("tail", "-n", "40", "/var/log/service.log", check=False).stdout

    def show(self, *properties: str) -> list[str]:
        return self.machine.show(UNIT, *properties)

    @property
    def pid(self) -> str:
        return self.show("MainPID")[0]

    def status(self) -> dict[str, Any] | None:
        out = self.command("status", "--json", check=False)
        found: dict[str, Any] | None = json.loads(out) if out else None
        return found

    def workers(self) -> dict[str, int]:
        """Running workers, once the daemon has them all."""

        def ready() -> dict[str, int] | None:
            status = self.status()
            agents = status["agents"] if status is not None else []
            found = {a["id"]: a["pid"] for a in agents if a["pid"] is not None}
            return found if len(found) == 2 else None

        found = self.machine.until(ready)
        assert found is not None
        return found

    def alive(self, pid: int) -> bool:
        return self.machine.run("kill", "-0", str(pid), check=False).returncode == 0

    def replaced(self, old: str) -> str:
        """The pid of the daemon that came after ``old``, when it is ready."""

        def new() -> str:
            pid, state = self.show("MainPID", "ActiveState")
            return pid if state == "active" and pid not in (old, "0") else ""

        return self.machine.until(new)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Booted]:
    machine = Booted(tmp_path_factory.mktemp("machine"))
    try:
        machine.start()
        Service(machine).install()
        yield machine
    finally:
        machine.stop()


@pytest.fixture
def service(machine: Booted) -> Iterator[Service]:
    """Running, with its workers."""
    service = Service(machine)
    service.systemctl("start")
    service.workers()
    yield service
    service.systemctl("stop", check=False)
    machine.run("systemctl", "reset-failed", UNIT, check=False)


def test_it_boots_without_livekit_and_tells_what_it_does(service: Service) -> None:
    """``systemctl start`` has returned: READY came, though no LiveKit is there."""
    assert service.show("ActiveState", "SubState", "Type") == ["active", "running", "notify"]
    text = service.machine.until(lambda: t if "agents ready" in (t := service.show("StatusText")[0]) else "")
    assert text.endswith("LiveKit not reached")
    uid = service.machine.run("stat", "-c", "%U %a", "/var/lib/livekit-supervisor").stdout.split()
    assert uid == ["livekit-supervisor", "700"]
    for pid in (service.pid, *map(str, service.workers().values())):
        facts = service.machine.run("cat", f"/proc/{pid}/status").stdout
        assert "NoNewPrivs:\t1" in facts
        assert "CapEff:\t0000000000000000" in facts


def test_stop_leaves_no_process_and_keeps_state_and_logs(service: Service) -> None:
    workers = service.workers()
    service.systemctl("stop")
    assert service.show("ActiveState", "Result") == ["inactive", "success"]
    assert not [pid for pid in workers.values() if service.alive(pid)]
    kept = service.machine.run(
        "sh", "-c", "ls /var/lib/livekit-supervisor /var/log/livekit-supervisor"
    ).stdout
    assert "supervisor.db" in kept
    assert "steady.log" in kept
    assert service.machine.run("ls", "/run/livekit-supervisor", check=False).returncode != 0


def test_restart_gives_everybody_a_new_process(service: Service) -> None:
    before, old = service.workers(), service.pid
    service.systemctl("restart")
    assert service.pid != old
    assert not set(before.values()) & set(service.workers().values())
    assert not [pid for pid in before.values() if service.alive(pid)]


def test_a_killed_daemon_comes_back_and_has_the_same_workers(service: Service) -> None:
    before, old = service.workers(), service.pid
    sockets = service.machine.run("stat", "-c", "%i", "/run/livekit-supervisor").stdout
    service.machine.run("kill", "-KILL", old)
    new = service.replaced(old)
    assert new != old
    assert service.workers() == before
    # Workers look for the sockets in the directory that they have always known.
    assert service.machine.run("stat", "-c", "%i", "/run/livekit-supervisor").stdout == sockets


def test_an_upgrade_by_handoff_keeps_the_workers(service: Service) -> None:
    before, old = service.workers(), service.pid
    service.command("handoff")
    service.replaced(old)
    assert service.workers() == before


def test_the_watchdog_replaces_a_daemon_that_stands_still(service: Service) -> None:
    before = service.workers()
    directory = f"/run/systemd/system/{UNIT}.service.d"
    service.machine.write(f"{directory}/quick.conf", "[Service]\nWatchdogSec=2s\n")
    try:
        service.machine.run("systemctl", "daemon-reload")
        old = service.pid
        service.command("handoff")
        old = service.replaced(old)
        assert service.workers() == before
        fed = service.show("WatchdogTimestampMonotonic")[0]
        for _ in range(5):  # of half a second each: longer than its patience
            fed = service.machine.until(functools.partial(_fed_after, service, fed))
        assert service.pid == old
        service.machine.run("kill", "-STOP", old)
        service.replaced(old)
        assert service.workers() == before
        assert int(service.show("NRestarts")[0]) >= 1
    finally:
        service.machine.run("rm", "-r", directory)
        service.machine.run("systemctl", "daemon-reload")


def _fed_after(service: Service, last: str) -> str:
    stamp = service.show("WatchdogTimestampMonotonic")[0]
    return stamp if stamp != last else ""


def test_a_daemon_killed_while_it_stops_leaves_nobody(service: Service) -> None:
    """The stubborn worker takes its second; the daemon is killed within it; the clean-up ends the rest."""
    workers, old = service.workers(), service.pid
    service.machine.run("systemctl", "stop", "--no-block", UNIT)
    note = "/var/lib/livekit-supervisor/stopping"
    service.machine.until(lambda: service.machine.run("test", "-e", note, check=False).returncode == 0)
    service.machine.run("kill", "-KILL", old)
    service.machine.until(lambda: service.show("ActiveState")[0] in ("failed", "inactive"))
    service.machine.until(lambda: not [pid for pid in workers.values() if service.alive(pid)], timeout=5)


def test_a_reload_of_a_bad_file_fails_and_changes_nothing(service: Service) -> None:
    before, old = service.workers(), service.pid
    service.machine.write(CONFIG, SETTINGS + "unknown: key\n")
    try:
        assert service.systemctl("reload", check=False) != 0
        assert service.show("ActiveState")[0] == "active"
        assert (service.pid, service.workers()) == (old, before)
    finally:
        service.machine.write(CONFIG, SETTINGS)
    service.systemctl("reload")
    assert (service.pid, service.workers()) == (old, before)


def test_it_never_gives_up_starting(service: Service) -> None:
    """With a configuration that cannot run, it is tried again for as long as it takes."""
    service.systemctl("stop")
    service.machine.write(CONFIG, "nothing: here\n")
    try:
        service.machine.run("systemctl", "start", "--no-block", UNIT)
        service.machine.until(lambda: int(service.show("NRestarts")[0]) >= 2)
    finally:
        service.machine.write(CONFIG, SETTINGS)
    service.machine.until(lambda: service.show("ActiveState")[0] == "active")
    assert service.workers()
