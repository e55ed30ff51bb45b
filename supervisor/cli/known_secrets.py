"""What one installation keeps to itself: its keys, and whatever its agents are given as variables.

One rule: nothing is needed for it but the file as it is; a configuration with mistakes has the same secrets.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from yaml.nodes import Node, ScalarNode

from supervisor.cli.redaction import REMOVED, Redactor
from supervisor.cli.written import compose, entries, readable, scalars
from supervisor.config import Settings
from supervisor.config.env_file import EnvFile
from supervisor.config.problems import FileProblems
from supervisor.config.secret_names import is_secret, told_openly
from supervisor.config.types import absolute
from supervisor.config.variables import VariableError, fill_in

_VARIABLES, _VARIABLES_FILE, _SECRET_FILE = "env", "env_file", "api_secret_file"
_LARGEST = 1_048_576
_SHORTEST = 6
"""A variable that is not named like a secret, and has less in it, goes only where its place is known."""

_COMMON = frozenset({"warning", "critical", "enabled", "disabled", "production", "development"})
"""Words that are in everybody's files."""


def redactor(file: Path, text: str | None, settings: Settings | None, environ: Mapping[str, str]) -> Redactor:
    """``text`` is what ``file`` holds; None where it cannot be read."""
    variables = [*_variables_of(settings)]
    secrets = [value for name, value in environ.items() if is_secret(name)]
    if settings is not None:
        given = (settings.livekit.api_secret, settings.livekit.webhook_api_secret)
        secrets += [secret.get_secret_value() for secret in given if secret is not None]
    node = readable(text)
    secrets += _filled(scalars(node, is_secret), environ)
    secrets += map(_content, _files(node, _SECRET_FILE, file, environ))
    for path in _files(node, _VARIABLES_FILE, file, environ):
        variables += _variables_in(path)
    for name, value in _given(node):
        variables += [(name, filled) for filled in _filled([value], environ)]
    open_words = _COMMON | (told_openly(settings) if settings is not None else frozenset())
    secrets += [v for n, v in variables if is_secret(n) or (len(v) >= _SHORTEST and v not in open_words)]
    return Redactor(secrets, (name for name, _ in variables))


def without_secrets(text: str) -> str | None:
    """A configuration in which each secret, however short, is gone from its place; None: it is no YAML."""
    try:
        node = compose(text)
    except ValueError:
        return None
    spans = {(n.start_mark.index, n.end_mark.index) for n in scalars(node, _is_to_go)}
    for start, end in sorted(spans, reverse=True):
        value = text[start:end]
        text = f"{text[:start]}{REMOVED}{value[len(value.rstrip()) :]}{text[end:]}"
    return text


# --- the file -------------------------------------------------------------------------------------------


def _is_to_go(key: str) -> bool:
    return key == _VARIABLES or is_secret(key)


def _given(node: Node | None) -> Iterator[tuple[str, ScalarNode]]:
    for key, value in entries(node):
        if key == _VARIABLES:
            yield from ((name, each) for name, each in entries(value) if isinstance(each, ScalarNode))


def _files(node: Node | None, key: str, file: Path, environ: Mapping[str, str]) -> Iterator[Path]:
    named = (value for name, value in entries(node) if name == key and isinstance(value, ScalarNode))
    for text in _filled(named, environ):
        with contextlib.suppress(ValueError):
            yield absolute(text, file.absolute().parent)


def _filled(nodes: Iterable[ScalarNode], environ: Mapping[str, str]) -> Iterator[str]:
    """As it stands there, and as the environment has it."""
    for node in nodes:
        text = str(node.value)
        yield text
        with contextlib.suppress(VariableError):
            yield fill_in(text, environ)


# --- what it names --------------------------------------------------------------------------------------


def _variables_of(settings: Settings | None) -> Iterator[tuple[str, str]]:
    for agent in settings.agents if settings is not None else ():
        yield from agent.environment.items()


def _variables_in(path: Path) -> Iterable[tuple[str, str]]:
    try:
        return EnvFile.read(path).variables.items()
    except FileProblems:
        # With a mistake in one line, the others are still secret.
        lines = (line.removeprefix("export ").partition("=") for line in _content(path).splitlines())
        return [(name.strip(), value.strip().strip("\"'")) for name, _, value in lines if name.strip()]
    except OSError:
        return ()


def _content(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST).decode("utf-8", "replace").strip()
    except OSError:
        return ""
