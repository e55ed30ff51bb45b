"""Starts a user's script as a guarded worker, in each of the ways a worker is written.

One rule: no worker runs unguarded and none ends without a reason: what keeps it from running is told on
standard error, to the daemon, and by the exit code.

The ways: ``cli.run_app(server)``, ``cli.run_app(WorkerOptions(...))``, and a bare ``AgentServer`` in the
script's globals, which ``python -m livekit.agents start`` would find.
"""

from __future__ import annotations

import importlib
import sys
import traceback
import types
from collections.abc import MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from agent_guard import lock
from agent_guard.messages import Failed, WorkerHello
from agent_guard.settings import AGENT_ID, SOCKET, GuardError, GuardSettings

if TYPE_CHECKING:
    from agent_guard.install import Outcome

T = TypeVar("T")

EXIT_USAGE = 2
EXIT_LIVEKIT_LOST = 69
EXIT_WORKER_FAILED = 70
EXIT_UNGUARDED = 78
"""The guard or the script could not start; the reason is on standard error."""

SAFE_PATH = "PYTHONSAFEPATH"
"""Set by the daemon, so that no file in the working directory stands in for a module that we import;
it is not meant for the script and the programs that it starts."""

_PREFERRED = ("app", "server", "agent")


def main(arguments: list[str], environ: MutableMapping[str, str]) -> int:
    if arguments[:1] == ["--"]:
        arguments = arguments[1:]
    if not arguments:
        print("usage: python -m agent_guard [--] SCRIPT [ARGS...]", file=sys.stderr)
        return EXIT_USAGE
    environ.pop(SAFE_PATH, None)
    try:
        lock.hold(environ)
        settings = GuardSettings.from_environ(environ)
        outcome = _install(settings)
        return _run(Path(arguments[0]).absolute(), arguments[1:], outcome, environ)
    except GuardError as error:
        return _refuse(str(error), environ)


def _install(settings: GuardSettings) -> Outcome:
    try:
        from agent_guard.install import install
    except ImportError as error:
        raise GuardError(f"this Python cannot guard a LiveKit worker: {error}") from None
    return install(settings)


def _run(script: Path, arguments: list[str], outcome: Outcome, environ: MutableMapping[str, str]) -> int:
    from agent_guard.script import run_as_main

    status: int | None = None
    try:
        module = run_as_main(script, arguments)
        if not outcome.ran:
            _run_server_of(module, arguments or ["start"])
    except SystemExit as end:
        status = _status(end)
    except GuardError:
        raise
    except Exception as error:  # whatever the script raises ends here, as it would end in Python itself
        traceback.print_exc()
        if not outcome.ran:
            _tell_daemon(f"the script failed: {type(error).__name__}: {error}", environ)
        return _status_of(outcome) or 1
    if not outcome.ran:
        if status:
            _refuse(f"the script exited with {status} before it ran a server", environ)
            return status
        raise GuardError("the script ended without having run a server")
    return status or _status_of(outcome)


def _run_server_of(module: types.ModuleType, arguments: list[str]) -> None:
    """What ``python -m livekit.agents start SCRIPT`` does with the server that it finds."""
    from livekit.agents import AgentServer, cli

    server = find_server(module, AgentServer)
    if server is None:
        raise GuardError("the script ended without having run a server, and none of its globals is one")
    command_line = _command_line()
    if command_line is None:
        cli.run_app(server)
        return
    setattr(command_line, "_discover_server", lambda _entrypoint: server)  # noqa: B010
    command_line.main([arguments[0], sys.argv[0], *arguments[1:]])


def _command_line() -> types.ModuleType | None:
    """``python -m livekit.agents``; versions that have none run a server by ``cli.run_app`` alone."""
    try:
        module = importlib.import_module("livekit.agents.__main__")
    except ImportError:
        return None
    return module if hasattr(module, "_discover_server") and hasattr(module, "main") else None


def find_server(module: types.ModuleType, kind: type[T]) -> T | None:
    """By LiveKit's own rule: one of the usual names, else the first by name."""
    names = [*_PREFERRED, *sorted(vars(module))]
    return next((vars(module)[n] for n in names if isinstance(vars(module).get(n), kind)), None)


def _status(end: SystemExit) -> int:
    if end.code is None:
        return 0
    if isinstance(end.code, int):
        return end.code
    print(end.code, file=sys.stderr)
    return 1


def _status_of(outcome: Outcome) -> int:
    """LiveKit's command line logs a worker's failure and exits with 0."""
    if isinstance(outcome.failure, GuardError):
        raise outcome.failure
    if outcome.livekit_lost:
        return EXIT_LIVEKIT_LOST
    return 0 if outcome.failure is None else EXIT_WORKER_FAILED


def _refuse(reason: str, environ: MutableMapping[str, str]) -> int:
    print(f"agent_guard: {reason}", file=sys.stderr)
    _tell_daemon(reason, environ)
    return EXIT_UNGUARDED


def _tell_daemon(reason: str, environ: MutableMapping[str, str]) -> None:
    from agent_guard import __version__
    from agent_guard.transport import tell

    if environ.get(SOCKET) and environ.get(AGENT_ID):
        hello = WorkerHello(
            agent_id=environ[AGENT_ID], guard=__version__, agents="", executor="process", max_load=None
        )
        tell(environ[SOCKET], hello, Failed(reason=reason))
