"""A command line of an old start script, taken apart: which Python runs which script as a worker?

One rule: the same judge that tells workers from editors in a process scan decides here, too.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from supervisor.cli.importing_pieces import Worker
from supervisor.process.command_line import is_interpreter, worker_script

_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_WRAPPERS = frozenset(
    {"nohup", "exec", "setsid", "env", "time", "command", "caffeinate", "stdbuf", "nice", "ionice"}
)
_RUNNERS = frozenset({"uv", "poetry", "pipenv", "pdm", "hatch", "rye"})
_COMMANDS = frozenset({"start", "dev", "connect"})
_OTHER_PROGRAMS = frozenset({"node", "nodejs", "bun", "deno", "tsx", "npx", "go"})
_SUDO_WITH_VALUE = frozenset({"-u", "-g", "--user", "--group"})
_REDIRECTION = re.compile(r"[0-9&]*(>>?|<)(&?[0-9-]*)?")


def worker_of(
    words: Sequence[str], cwd: Path, source: str, title: str, virtual_environment: Path | None = None
) -> Worker | None:
    """None when that runs no worker.  ``virtual_environment`` is one that was activated before."""
    env: dict[str, str] = {}
    left = _unwrapped([*_without_redirections(words)], env)
    if not left:
        return None
    worker = _python_worker(left, cwd, source, title, virtual_environment) or _other(left, source, title)
    if worker is not None:
        worker.cwd = cwd
        worker.env.update(env)
    return worker


def _without_redirections(words: Sequence[str]) -> list[str]:
    kept: list[str] = []
    skip = False
    for word in words:
        match = _REDIRECTION.match(word)
        if skip or word == "&":
            skip = False
        elif match is not None and word[:1] in "0123456789&<>" and match[1]:
            skip = match.end() == len(word) and not match[2]
        else:
            kept.append(word)
    return kept


def _unwrapped(words: list[str], env: dict[str, str]) -> list[str]:
    """Without what only prepares the ground; its variables go into ``env``."""
    while words:
        assignment = _ASSIGNMENT.fullmatch(words[0])
        if assignment is not None:
            env[assignment[1]] = assignment[2]
            del words[0]
        elif Path(words[0]).name in _WRAPPERS:
            del words[0]
            while words and words[0].startswith("-"):
                del words[0]
        elif words[0] == "sudo":
            del words[0]
            while words and words[0].startswith("-"):
                del words[: 2 if words[0] in _SUDO_WITH_VALUE else 1]
        elif words[0] == "timeout":
            del words[:2]
        else:
            break
    return words


def _python_worker(
    words: list[str], cwd: Path, source: str, title: str, virtual_environment: Path | None
) -> Worker | None:
    program = Path(words[0]).name
    if program in _RUNNERS and words[1:2] == ["run"]:
        rest = [*words[2:]]
        while rest and rest[0].startswith("-"):
            del rest[0]
        return _script_first(rest, cwd, source, title, cwd / ".venv") or (
            _python_worker(rest, cwd, source, title, cwd / ".venv") if rest else None
        )
    if not is_interpreter(words[0]):
        return _script_first(words, cwd, source, title, virtual_environment)
    script = worker_script(words[0], words, str(cwd))
    if script is None:
        return None
    worker = Worker(source, title, script=Path(script), args=_args(words, script, cwd))
    worker.python = _interpreter(words[0], cwd, virtual_environment, worker)
    return worker


def _script_first(
    words: list[str], cwd: Path, source: str, title: str, virtual_environment: Path | None
) -> Worker | None:
    """``agent.py start``: executable, or for a runner."""
    if not words or not words[0].endswith(".py") or not _COMMANDS & set(words[1:]):
        return None
    worker = Worker(source, title, script=(cwd / words[0]), args=tuple(words[1:]))
    worker.python = _interpreter("python3", cwd, virtual_environment, worker)
    return worker


def _args(words: Sequence[str], script: str, cwd: Path) -> tuple[str, ...]:
    """What the script is given; ``start`` alone is what it is given anyway."""
    at = next(n for n, word in enumerate(words) if n and os.path.normpath(cwd / word) == script)
    rest = list(words[at + 1 :])
    if "-m" in words[:at]:
        rest = [*words[words.index("-m") + 2 : at], *rest]
    return () if rest == ["start"] else tuple(rest)


def _interpreter(name: str, cwd: Path, virtual_environment: Path | None, worker: Worker) -> Path | None:
    if "/" in name:
        return cwd / name
    if virtual_environment is not None and os.path.exists(virtual_environment / "bin/python"):
        return virtual_environment / "bin/python"
    for folder in (".venv", "venv", "env"):
        if os.path.exists(cwd / folder / "bin/python"):
            worker.remarks.append(f"{name} could be any: the environment beside it, {folder}, was taken")
            return cwd / folder / "bin/python"
    found = shutil.which(name)
    worker.remarks.append(f"{name} could be any: {found or 'none was found, so python: is left out'}")
    return Path(found) if found is not None else None


def _other(words: list[str], source: str, title: str) -> Worker | None:
    """A worker in another language."""
    if Path(words[0]).name not in _OTHER_PROGRAMS or not _COMMANDS & set(words[1:]):
        return None
    worker = Worker(source, title, command=tuple(words))
    worker.remarks.append("no Python script: it is kept single, and not guarded")
    return worker


def substitute(text: str, variables: Mapping[str, str]) -> str:
    """``$NAME``, ``${NAME}`` and ``${NAME:-default}``, where they are known."""

    def value(match: re.Match[str]) -> str:
        name = match["plain"] or match["name"]
        return variables.get(name) or (match["default"] if match["default"] is not None else match[0])

    return re.sub(
        r"\$(?:(?P<plain>[A-Za-z_]\w*)|\{(?P<name>[A-Za-z_]\w*)(?::-(?P<default>[^}]*))?\})", value, text
    )
