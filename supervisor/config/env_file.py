"""A file of environment variables: ``NAME=value`` lines, as systemd and ``.env`` files have them.

One rule: it is data.  Nothing in it is expanded or executed, and no problem quotes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from supervisor.config.problems import FileProblems, Problem

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)

RESERVED = "LIVEKIT_SUPERVISOR_"
"""Prefix of the variables by which workers are told apart."""

_MAX_BYTES = 1_048_576
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\", "$": "$", "`": "`"}
_ESCAPED = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class EnvFile:
    path: Path
    variables: Mapping[str, str] = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> EnvFile:
        """Raises OSError, or FileProblems with the line of each."""
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise FileProblems([Problem(str(path), None, "", "is larger than 1 MiB")])
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise FileProblems([Problem(str(path), None, "", "is not UTF-8 text")]) from None
        variables: dict[str, str] = {}
        problems = []
        for number, line in enumerate(text.split("\n"), start=1):
            try:
                variables.update(_parse(line.strip()))
            except ValueError as error:
                problems.append(Problem(str(path), number, "", str(error)))
        if problems:
            raise FileProblems(problems)
        return cls(path, variables)


def check_name(name: str) -> None:
    if NAME.fullmatch(name) is None:
        raise ValueError("a variable's name has only letters, digits and _, and does not begin with a digit")
    if name.startswith(RESERVED):
        raise ValueError(f"names that begin with {RESERVED} are set by the supervisor")


def _parse(line: str) -> Iterator[tuple[str, str]]:
    if not line or line.startswith(("#", ";")):
        return
    name, equals, value = line.removeprefix("export ").partition("=")
    if not equals:
        raise ValueError("must be NAME=value")
    check_name(name.strip())
    yield name.strip(), _unquoted(value.strip())


def _unquoted(value: str) -> str:
    if "\0" in value:
        raise ValueError("a value cannot hold a NUL character")
    quote = value[:1]
    if quote not in ("'", '"'):
        return re.split(r"\s#", value, maxsplit=1)[0].rstrip()
    if len(value) < 2 or not value.endswith(quote):
        raise ValueError("the quotation mark that begins the value does not end it")
    inside = value[1:-1]
    return inside if quote == "'" else _ESCAPED.sub(lambda m: _ESCAPES.get(m[1], m[0]), inside)
