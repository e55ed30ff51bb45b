"""A start script in shell, read line by line: folders, variables, environments, and the worker it starts.

One rule: conditions and loops are not followed; a line that starts a worker counts wherever it stands.
"""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from supervisor.cli.importing_commands import substitute, worker_of
from supervisor.cli.importing_env import read_variables
from supervisor.cli.importing_pieces import Pieces, Worker, is_open

_HERE = re.compile(
    r"""\$\(\s*cd\s+["']?\$\(dirname\s+[^)]*\)["']?\s*(?:&&|;)\s*pwd(?:\s+-P)?\s*\)"""
    r"""|\$\(\s*(?:realpath\s+)?["']?\$?\(?dirname\s+[^)]*\)+["']?\s*\)?"""
)
_ASSIGNMENT = re.compile(r"(?:export\s+|local\s+|readonly\s+)?([A-Za-z_]\w*)=(.*)")
_ACTIVATE = re.compile(r"(?:source|\.)\s+(\S+)/bin/activate\b")
_SOURCE = re.compile(r"(?:source|\.)\s+(\S+)$")
_SEPARATORS = re.compile(r"\s*(?:&&|\|\||;|\|)\s*")
_MOST_BYTES = 1_048_576


def read_script(path: Path, pieces: Pieces, title: str | None = None) -> list[Worker]:
    try:
        with path.open("rb") as file:
            text = file.read(_MOST_BYTES).decode("utf-8", "replace")
    except OSError as error:
        pieces.remarks.append(f"{path}: cannot be read: {error.strerror}")
        return []
    return read_text(text, path, path.parent, pieces, title or path.stem)


def read_text(text: str, source: Path, cwd: Path, pieces: Pieces, title: str) -> list[Worker]:
    """``cwd`` is where it would be run."""
    shell = _Shell(source, cwd, pieces, title)
    for line in text.replace("\\\n", " ").splitlines():
        for part in _parts(line):
            shell.read(part)
    return shell.workers


def _parts(line: str) -> Iterator[str]:
    line = line.strip()
    if line.startswith("#"):
        return
    line = _HERE.sub("$HERE_IS_THE_SCRIPT", line)
    for part in _SEPARATORS.split(line):
        cleaned = part.strip().removesuffix("&").strip().lstrip("(){}").rstrip("()")
        # The } of a ${NAME} is none that ends a group.
        cleaned = cleaned.strip().removesuffix(" }").strip()
        if cleaned and not cleaned.startswith("#"):
            yield cleaned


class _Shell:
    def __init__(self, source: Path, cwd: Path, pieces: Pieces, title: str) -> None:
        self.workers: list[Worker] = []
        self._source = source
        self._cwd = cwd
        self._pieces = pieces
        self._title = title
        self._variables: dict[str, str] = {"HERE_IS_THE_SCRIPT": str(source.parent), "PWD": str(cwd)}
        self._exported: dict[str, str] = {}
        self._env_files: list[Path] = []
        self._environment: Path | None = None

    def read(self, part: str) -> None:
        told = substitute(part, self._variables)
        if (activate := _ACTIVATE.search(told)) is not None:
            self._environment = self._path(activate[1])
        elif (assigned := _ASSIGNMENT.fullmatch(told)) is not None and not _has_more_words(assigned[2]):
            self._assign(part, assigned[1], assigned[2])
        elif (sourced := _SOURCE.match(told)) is not None:
            self._read_variables(self._path(sourced[1]))
        else:
            self._read_command(_words(told))

    def _assign(self, part: str, name: str, value: str) -> None:
        words = _words(value)
        self._variables[name] = words[0] if words else ""
        if part.startswith("export "):
            self._exported[name] = self._variables[name]

    def _read_variables(self, path: Path) -> None:
        if ".env" in path.name or path.suffix in (".env", ".conf"):
            self._env_files.append(path)
            self._pieces.add_variables(read_variables(path, self._pieces), path)

    def _read_command(self, words: list[str]) -> None:
        if words[:1] == ["cd"] and len(words) > 1:
            self._cwd = self._path(words[1])
            return
        worker = worker_of(words, self._cwd, str(self._source), self._title, self._environment)
        if worker is None:
            if words and any(word.endswith(".py") for word in words):
                self._pieces.seems_monitor(" ".join(words), str(self._source))
            return
        told = {**self._exported, **worker.env}
        worker.env = {name: value for name, value in told.items() if not is_open(value)}
        unknown = sorted(name for name in told.keys() - worker.env.keys())
        worker.remarks += [f"not told: {name}, which names a variable that is not known" for name in unknown]
        worker.env_files += self._env_files
        if worker.script not in [known.script for known in self.workers]:
            self.workers.append(worker)

    def _path(self, text: str) -> Path:
        path = Path(text.strip("\"'"))
        with contextlib.suppress(RuntimeError):  # the home of nobody here
            path = path.expanduser()
        return self._cwd / path


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text, comments=True)
    except ValueError:
        return []


def _has_more_words(value: str) -> bool:
    """``NAME=value command``: the variable is for that command."""
    return len(_words(value)) > 1
