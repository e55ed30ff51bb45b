"""The commands on a real terminal: colours, progress, a live screen, and the shell's completion."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.cli_daemon import ECHO, NIGHT, SALES, STATUS, Daemon
from tests.unit.test_cli_commands import CHECKOUT, config, daemon

__all__ = ["config", "daemon"]

COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Terminal:
    """A program on a terminal of its own, 80 columns wide."""

    def __init__(self, config: Path, *arguments: str, **variables: str) -> None:
        self.text = ""
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.program = subprocess.Popen(
            [sys.executable, "-m", "supervisor", *arguments],
            cwd=CHECKOUT,
            env={
                "LIVEKIT_SUPERVISOR_CONFIG": str(config),
                "PATH": os.defpath,
                "TERM": "xterm-256color",
                "LANG": "C.UTF-8",
                **variables,
            },
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)

    def until(self, text: str, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while text not in self.text:
            assert time.monotonic() < deadline, f"{text!r} is not in {self.text!r}"
            assert self._read(), f"{text!r} is not in {self.text!r}"

    def end(self) -> int:
        while self._read():
            pass
        return self.program.wait(30)

    def _read(self) -> bool:
        """False at its end."""
        if not select.select([self._ours], [], [], 1.0)[0]:
            return True
        try:
            data = os.read(self._ours, 65536)
        except OSError:  # the last of it has left
            return False
        self.text += data.decode(errors="replace")
        return bool(data)

    def close(self) -> None:
        if self.program.poll() is None:
            self.program.kill()
            self.program.wait()
        os.close(self._ours)


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.close()


@pytest.mark.parametrize(
    ("variables", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_colours_on_a_terminal_only_and_never_with_no_color(
    config: Path, daemon: Daemon, terminals: list[Terminal], variables: dict[str, str], coloured: bool
) -> None:
    terminals.append(Terminal(config, "status", **variables))
    assert terminals[0].end() == 0
    assert "Nothing is wrong" in terminals[0].text
    # Bold and dim are no colours; NO_COLOR leaves them.
    colours = {code for code in COLOUR.findall(terminals[0].text) if re.search(r"(?<!\d)[349]\d(?!\d)", code)}
    assert bool(colours) is coloured


def test_watch_is_a_live_screen_that_outlives_the_daemon(
    config: Path, daemon: Daemon, terminals: list[Terminal]
) -> None:
    terminals.append(watched := Terminal(config, "status", "--watch"))
    watched.until("\x1b[?1049h")  # a screen of its own
    watched.until("Nothing is wrong")
    daemon.agent(NIGHT).update(state="crash_loop", ready=False, reason="exit code 7", pid=None)
    watched.until("exit code 7")
    daemon.raw = b""
    watched.until("broke off its answer")
    daemon.raw = None
    daemon.status = {**STATUS, "problems": []}
    watched.text = ""
    watched.until("Nothing is wrong")
    watched.program.send_signal(signal.SIGINT)
    assert watched.end() == 0
    assert "\x1b[?1049l" in watched.text  # and the terminal as it was
    assert "Traceback" not in watched.text


def test_breaking_off_the_wait_is_no_traceback_and_undoes_nothing(
    config: Path, daemon: Daemon, terminals: list[Terminal]
) -> None:
    terminals.append(waiting := Terminal(config, "stop", "Agent_66"))
    waiting.until("Ctrl-C stops waiting")
    waiting.program.send_signal(signal.SIGINT)
    assert waiting.end() == 130
    assert "Traceback" not in waiting.text
    assert [name for name, _ in daemon.commands] == ["stop"]


def test_a_daemon_that_keeps_silent_is_waited_for_in_sight(
    config: Path, daemon: Daemon, terminals: list[Terminal]
) -> None:
    daemon.silent.set()
    for words in (
        ["status"],
        ["status", "--watch"],
        ["rooms"],
        ["conflicts"],
        ["stop", "Agent_66"],
        ["handoff"],
    ):
        terminals.append(Terminal(config, *words))
    for terminal in terminals:
        terminal.until("waiting for the daemon's answer")
    assert [terminal.end() for terminal in terminals] == [3] * len(terminals)
    for terminal in terminals:
        assert "does not answer within" in terminal.text
    assert daemon.commands == []


def test_a_check_tells_what_takes_so_long(config: Path, terminals: list[Terminal], tmp_path: Path) -> None:
    """An agent's Python that waits until it is let go."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\nread go < {gate}\necho 1.8.9\n")
    python.chmod(0o755)
    (tmp_path / "worker.py").write_text("")
    config.write_text(
        config.read_text().replace("command: [sleep, '1']", f"script: worker.py, python: {python}")
    )
    terminals.append(checked := Terminal(config, "check"))
    checked.until("asking each agent's Python")
    gate.write_text("go\n")
    assert checked.end() == 0
    assert "OK: " in checked.text


@pytest.mark.parametrize("command", ["stop", "demo"])
def test_the_shell_completes_commands_and_agents(config: Path, command: str) -> None:
    """Without the daemon, from the configuration that is named, and without a word where there is none."""
    config.write_text(
        f"agents: [{{id: {ECHO}, name: Agent_66}}, {{id: {SALES}, name: ''}}, {{id: {NIGHT}}}]\n"
    )
    assert command in completed(config, command[:-1])
    assert completed(config, command, "") == ["Agent_66", ECHO, SALES, NIGHT]
    assert completed(config, command, "ni") == [NIGHT]
    assert completed(config.with_name("absent.yaml"), command, "") == []


def completed(config: Path, *words: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-m", "supervisor"],
        cwd=config.parent,
        env={
            "PATH": os.defpath,
            "PYTHONPATH": str(CHECKOUT),
            "LIVEKIT_SUPERVISOR_CONFIG": str(config),
            "_LIVEKIT_SUPERVISOR_COMPLETE": "complete_bash",
            "COMP_WORDS": " ".join(("livekit-supervisor", *words)),
            "COMP_CWORD": str(len(words)),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout.split()
