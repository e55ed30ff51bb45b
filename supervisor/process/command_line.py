"""Which script a Python command line runs as a LiveKit worker.

One rule: what is not plainly a worker is none.  An editor, a pager, a test run or ``console`` names the
same script and must never be taken for one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

_INTERPRETER = re.compile(r"(python|pypy)(\d+(\.\d+)*)?t?d?")
_COMMANDS = frozenset({"start", "dev", "connect"})

_INTERPRETER_OPTIONS_WITH_VALUE = frozenset("WX")
_AGENTS_OPTIONS_WITH_VALUE = frozenset(
    {
        "--log-level",
        "--log-format",
        "--url",
        "--api-key",
        "--api-secret",
        "--cli-addr",
        "--reload-addr",
    }
)


def worker_script(exe: str, cmdline: Sequence[str], cwd: str | None) -> str | None:
    """The absolute path of the script, normalised but with its links; None if this is no worker.

    The forms: ``python SCRIPT start|dev|connect``, ``python -m livekit.agents start SCRIPT`` and our own
    launcher's ``python -m agent_guard SCRIPT``.  ``exe`` is empty where it may not be read; a relative script
    is found from ``cwd``, and without that it is not known.
    """
    if not cmdline or not is_interpreter(exe or cmdline[0]):
        return None
    script = _script_of(_without_interpreter_options(cmdline[1:]))
    if not script or (cwd is None and not os.path.isabs(script)):
        return None
    return os.path.normpath(os.path.join(cwd or "/", script))


def is_interpreter(program: str) -> bool:
    # The kernel says so when the file has been replaced, as by an upgrade, under a running process.
    name = os.path.basename(program.removesuffix(" (deleted)"))
    return _INTERPRETER.fullmatch(name) is not None


def _script_of(arguments: list[str]) -> str | None:
    match arguments:
        case ["-m", "livekit.agents", command, *rest] if command in _COMMANDS:
            return _first_positional(rest, _AGENTS_OPTIONS_WITH_VALUE)
        case ["-m", "agent_guard", *rest]:
            return _first_positional(rest[1:] if rest[:1] == ["--"] else rest)
        case [script, *rest] if not script.startswith("-"):
            return script if _first_positional(rest) in _COMMANDS else None
    return None


def _without_interpreter_options(arguments: Sequence[str]) -> list[str]:
    """From the script, or from ``-m MODULE``, on; empty for ``-c`` and what else is no file."""
    left = list(arguments)
    while left and left[0].startswith("-") and left[0] != "-":
        option = left.pop(0)
        if option.startswith("--"):
            if option == "--check-hash-based-pycs":
                del left[:1]
            continue
        for position, letter in enumerate(option[1:], start=2):
            attached = option[position:]
            if letter == "c":
                return []
            if letter == "m":
                return ["-m", attached, *left] if attached else ["-m", *left]
            if letter in _INTERPRETER_OPTIONS_WITH_VALUE:
                del left[: 0 if attached else 1]
                break
    return left


def _first_positional(arguments: Sequence[str], with_value: frozenset[str] = frozenset()) -> str | None:
    skip = False
    for argument in arguments:
        if skip:
            skip = False
        elif not argument.startswith("-"):
            return argument
        else:
            skip = argument in with_value
    return None
