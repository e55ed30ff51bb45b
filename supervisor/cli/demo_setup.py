"""The set-up that a demo runs against: the one that is there, or one of its own.

One rule: a daemon that is not in development mode is not touched, and what was started here is ended here.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from supervisor.cli.client import Client, NotAnswering, NotRunning
from supervisor.cli.documents import Agent, Status
from supervisor.cli.errors import CliError, ExitCode
from supervisor.cli.own_commands import about
from supervisor.cli.references import Reference, resolve
from supervisor.cli.text import plain

Tell = Callable[[str], None]

DEVELOPMENT = "development"

_SETTING_UP = 300.0
"""Seconds: the first start may have to build LiveKit's server."""

_BEGINNING = 10.0
_AGENT_STARTS = 90.0
_LOOK_AGAIN = 0.2
_LEAVING = 12.0
_LAST_LINES = 12


@contextlib.contextmanager
def development_setup(client: Client, config_file: Path, tell: Tell) -> Iterator[None]:
    """While inside, a daemon in development mode answers; ended afterwards if it was started for this."""
    status = _running(client)
    if status is not None:
        require_development(status)
        tell(f"using the running development set-up (pid {status['daemon']['pid']})")
        yield
        return
    tell("no daemon is running: starting a development set-up for this demo")
    with tempfile.TemporaryFile() as output:
        process = _start(config_file, output)
        try:
            _wait_for_daemon(client, process, output, tell)
            yield
        finally:
            tell("ending the development set-up")
            _end(process)


def require_development(status: Status) -> None:
    mode = status["daemon"]["mode"]
    if mode != DEVELOPMENT:
        raise CliError(
            f"the running daemon (pid {status['daemon']['pid']}) is in {plain(mode)} mode: the demo kills "
            "workers and LiveKit, so it runs against a development set-up only. Nothing was touched",
            ExitCode.USAGE,
        )


def wait_for_agent(client: Client, text: str | None, tell: Tell) -> Agent:
    """The agent meant, else the first, as soon as it is ready."""
    status = _with_agents(client)
    deadline = time.monotonic() + _AGENT_STARTS
    told = False
    while True:
        require_development(status)
        found = _choose(status, text)
        if found["ready"] and status["livekit"]["up"]:
            return found
        if time.monotonic() > deadline:
            reason = plain(found["reason"] or status["livekit"]["error"] or "no reason told")
            look = about(client.config, f"livekit-supervisor logs {plain(found['id'])}")
            raise CliError(
                f"{_title(found)} is {plain(found['state'])} after {_AGENT_STARTS:g} s: {reason}\n  {look}",
                ExitCode.WRONG,
            )
        if not told:
            tell(f"waiting for {_title(found)} to be ready")
            told = True
        time.sleep(_LOOK_AGAIN)
        status = client.status()


def _with_agents(client: Client) -> Status:
    """A daemon that has only just begun may answer before it has looked at its agents."""
    deadline = time.monotonic() + _BEGINNING
    while not (status := client.status())["agents"]:
        if time.monotonic() > deadline:
            raise CliError("the daemon has no agents", ExitCode.USAGE)
        time.sleep(_LOOK_AGAIN)
    return status


def _choose(status: Status, text: str | None) -> Agent:
    agents = status["agents"]
    if text is None:
        return next((a for a in agents if a["ready"]), agents[0])
    meant = resolve(text, [Reference(a["id"], a["name"] or "") for a in agents])
    return next(a for a in agents if a["id"] == meant.id)


def _title(agent: Agent) -> str:
    return plain(agent["name"] or agent["id"])


def _running(client: Client) -> Status | None:
    try:
        return client.status()
    except NotAnswering:
        raise
    except NotRunning:
        return None


# --- a set-up of our own ------------------------------------------------------------------------------


def _start(config_file: Path, output: BinaryIO) -> subprocess.Popen[bytes]:
    """In a session of its own: Ctrl-C ends the demo, and the demo ends it."""
    return subprocess.Popen(
        [sys.executable, "-m", "supervisor", "run", "--dev", "--config", config_file],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def _wait_for_daemon(client: Client, process: subprocess.Popen[bytes], output: BinaryIO, tell: Tell) -> None:
    deadline = time.monotonic() + _SETTING_UP
    shown = ""
    while _running(client) is None:
        code = process.poll()
        lines = _lines(output)
        if code is not None:
            raise CliError(
                "the development set-up ended at once:\n  " + "\n  ".join(lines[-_LAST_LINES:]),
                _ended_with(code),
            )
        if time.monotonic() > deadline:
            raise CliError(f"no development set-up within {_SETTING_UP:g} s", ExitCode.NOT_RUNNING)
        if lines and lines[-1] != shown:
            shown = lines[-1]
            tell(f"  {shown}")
        time.sleep(_LOOK_AGAIN)


def _lines(output: BinaryIO) -> list[str]:
    """What the daemon has printed; ``pread``, since it writes through the same file."""
    text = os.pread(output.fileno(), 1024 * 1024, 0).decode(errors="replace")
    return [plain(line) for line in text.splitlines() if line.strip()]


def _ended_with(code: int) -> ExitCode:
    return ExitCode(code) if code in (ExitCode.USAGE, ExitCode.TAKEN) else ExitCode.NOT_RUNNING


def _end(process: subprocess.Popen[bytes]) -> None:
    """As an operator would, twice; then without asking."""
    for _ in range(2):
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_LEAVING)
            return
    process.kill()
    process.wait()
