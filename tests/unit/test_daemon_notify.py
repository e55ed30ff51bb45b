"""What systemd is told, and when the watchdog is fed: while the loops turn, and no longer."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.daemon.notify import Notifier
from supervisor.daemon.watchdog import PATIENCE, Watchdog
from supervisor.events import Event, EventBus, InternalError, Loop, LoopOutcome, Reconciled


class Systemd:
    """The receiving end."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)

    def heard(self) -> list[str]:
        messages = []
        while True:
            try:
                messages.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                return messages

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def systemd(runtime_dir: Path) -> Iterator[Systemd]:
    systemd = Systemd(str(runtime_dir / "notify"))
    yield systemd
    systemd.close()


# --- messages -------------------------------------------------------------------------------------------


def test_each_thing_is_one_message(systemd: Systemd) -> None:
    notifier = Notifier.from_environ({"NOTIFY_SOCKET": systemd.address})
    notifier.ready()
    notifier.status("2 of 2\nagents ready")
    notifier.status("2 of 2 agents ready")
    notifier.watchdog()
    notifier.stopping(12.5)
    assert systemd.heard() == [
        "READY=1",
        "STATUS=2 of 2 agents ready",
        "WATCHDOG=1",
        "STOPPING=1\nEXTEND_TIMEOUT_USEC=12500000",
    ]


def test_an_abstract_socket(runtime_dir: Path) -> None:
    systemd = Systemd(f"@{runtime_dir.name}")
    Notifier.from_environ({"NOTIFY_SOCKET": systemd.address}).ready()
    assert systemd.heard() == ["READY=1"]
    systemd.close()


@pytest.mark.parametrize("address", ["", "relative", "vsock:2:1", "/no/such/socket", "@nobody-is-there"])
def test_nobody_listens(address: str) -> None:
    notifier = Notifier.from_environ({"NOTIFY_SOCKET": address})
    notifier.ready()
    notifier.stopping(1)


def test_a_receiver_that_does_not_read_delays_nothing(systemd: Systemd) -> None:
    notifier = Notifier.from_environ({"NOTIFY_SOCKET": systemd.address})
    for _ in range(2_000):
        notifier.watchdog()
    assert systemd.heard()


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, 0.0),
        ({"WATCHDOG_USEC": "soon"}, 0.0),
        ({}, 0.0),
    ],
)
def test_systemds_patience(environ: dict[str, str], seconds: float) -> None:
    assert Notifier.from_environ({"NOTIFY_SOCKET": "/x", **environ}).watchdog_seconds == seconds


# --- the watchdog ---------------------------------------------------------------------------------------


class Turning:
    """Loops under a clock of the test's own."""

    def __init__(self, systemd: Systemd, call_timeout: float = 5.0) -> None:
        self.now = 0.0
        self.waiting = {Loop.WORKERS: 0, Loop.ROOMS: 0, Loop.SCAN: 1}
        self.events: list[Event] = []
        bus = EventBus()
        bus.subscribe(self.events.append)
        self._bus = bus
        self._systemd = systemd
        self.watchdog = Watchdog(
            Notifier(systemd.address, 40.0),
            bus,
            lambda: self.now,
            {loop: lambda loop=loop: self.waiting[loop] for loop in self.waiting},  # type: ignore[misc]
            call_timeout=call_timeout,
        )
        bus.subscribe(self.watchdog)

    def turn(self, loop: Loop, outcome: LoopOutcome = LoopOutcome.OK) -> None:
        self._bus.publish(Reconciled(loop=loop, outcome=outcome, seconds=0.1))

    def fed_during(self, seconds: float, *loops: Loop, outcome: LoopOutcome = LoopOutcome.OK) -> int:
        """How often it was fed; ``loops`` finish something every five seconds."""
        end, heard = self.now + seconds, []
        while self.now < end:
            self.now += 0.5
            if self.now % 5 == 0:
                for loop in loops:
                    self.turn(loop, outcome)
            self.watchdog.tick()
            heard += self._systemd.heard()
        return heard.count("WATCHDOG=1")


def test_it_is_fed_while_nothing_waits(systemd: Systemd) -> None:
    assert Turning(systemd).fed_during(400, Loop.SCAN) == 40


def test_looks_that_fail_are_turns_too(systemd: Systemd) -> None:
    turning = Turning(systemd)
    turning.waiting[Loop.ROOMS] = 10_000
    assert turning.fed_during(400, Loop.SCAN, Loop.ROOMS, outcome=LoopOutcome.FAILED) == 40


@pytest.mark.parametrize("stuck", list(Loop))
def test_a_loop_that_finishes_nothing_while_something_waits_is_stuck(systemd: Systemd, stuck: Loop) -> None:
    turning = Turning(systemd)
    others = [loop for loop in Loop if loop is not stuck]
    turning.waiting[stuck] = 1
    assert turning.fed_during(PATIENCE, *others) > 0
    assert not turning.watchdog.stuck
    assert turning.fed_during(400, *others) == 0
    assert turning.watchdog.stuck == {stuck}
    [told] = [e for e in turning.events if isinstance(e, InternalError)]
    assert stuck.value in told.error
    turning.turn(stuck)
    assert turning.fed_during(10, *Loop) > 0
    assert not turning.watchdog.stuck


def test_slow_calls_to_livekit_are_no_reason(systemd: Systemd) -> None:
    """A look at a room makes several, and each may take its whole time-out."""
    turning = Turning(systemd, call_timeout=30.0)
    turning.waiting[Loop.ROOMS] = 1
    assert turning.fed_during(300, Loop.SCAN) == 30
    assert turning.fed_during(300, Loop.SCAN) <= 6


def test_without_a_watchdog_nothing_is_fed(systemd: Systemd) -> None:
    turning = Turning(systemd)
    turning.watchdog._notifier.watchdog_seconds = 0.0
    assert turning.fed_during(100, Loop.SCAN) == 0
