"""From a file to settings: read, check each value and what belongs together, and tell all of it at once."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from supervisor.config import document, relations
from supervisor.config.problems import ConfigError, FileProblems, Problem
from supervisor.config.settings import Settings
from supervisor.config.types import Surroundings

MAX_BYTES = 1_048_576


def load(path: Path, environ: Mapping[str, str]) -> Settings:
    """Raises :class:`ConfigError` with every problem, in the order of the file."""
    parsed = document.parse(_text_of(path), environ)
    problems = _Problems(str(path), parsed)
    for place, line, message in parsed.problems:
        problems.add(place, message, line)
    if not isinstance(parsed.data, dict):
        if not parsed.problems:
            problems.add((), "must be a mapping, beginning with livekit: and agents:")
        raise ConfigError(problems.sorted())
    for place, message in relations.check(parsed.data):
        problems.add(place, message)
    around = Surroundings(folder=path.absolute().parent, environ=environ)
    try:
        settings = Settings.model_validate(parsed.data, context=around)
    except ValidationError as error:
        for details in error.errors(include_url=False, include_input=False):
            problems.add_error(details)
        settings = None
    if problems or settings is None:
        raise ConfigError(problems.sorted())
    return settings


def _text_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        message = "there is no such file: name one with --config, or see the example config.yaml"
        raise ConfigError([Problem(str(path), None, "", message)]) from None
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
        raise ConfigError([Problem(str(path), None, "", message)]) from None
    if len(content) > MAX_BYTES:
        raise ConfigError([Problem(str(path), None, "", "is larger than 1 MiB")])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError([Problem(str(path), line, "", "is not UTF-8 text")]) from None


class _Problems:
    """Collects; what is below a place that is wrong already would only repeat it."""

    def __init__(self, file: str, parsed: document.Document) -> None:
        self._file = file
        self._document = parsed
        self._found: list[Problem] = []
        self._wrong: set[document.Path] = set()

    def __bool__(self) -> bool:
        return bool(self._found)

    def sorted(self) -> list[Problem]:
        return sorted(self._found, key=lambda p: (p.file != self._file, p.file, p.line or 0))

    def add(self, place: document.Path, message: str, line: int | None = None) -> None:
        line = line if line is not None else self._document.line(place)
        self._wrong.add(place)
        self._found.append(Problem(self._file, line, _spelled(place), message))

    def add_error(self, details: ErrorDetails) -> None:
        place = details["loc"]
        if any(place[:length] in self._wrong for length in range(1, len(place) + 1)):
            return
        cause = details.get("ctx", {}).get("error")
        if isinstance(cause, FileProblems):
            self._wrong.add(place)
            self._found.extend(cause.problems)
        else:
            self.add(place, _message(details))


def _spelled(place: document.Path) -> str:
    text = ""
    for key in place:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else key
    # A key is anything that somebody wrote; a message is one line.
    return "".join(c if c.isprintable() else "?" for c in text)[:200]


# --- messages -----------------------------------------------------------------------------------------

_MESSAGES: dict[str, Callable[[ErrorDetails], str]] = {
    "missing": lambda _: "is required",
    "extra_forbidden": lambda details: _unknown(details["loc"]),
    "value_error": lambda details: str(details["ctx"]["error"]),
    "string_type": lambda _: "must be text; put a number, a date, or a word like yes in quotes",
    "bool_type": lambda _: "must be true or false",
    "int_type": lambda _: "must be a whole number",
    "int_from_float": lambda _: "must be a whole number",
    "float_type": lambda _: "must be a number",
    "finite_number": lambda _: "must be a number",
    "tuple_type": lambda _: "must be a list",
    "dict_type": lambda _: "must be a mapping of names to values",
    "model_type": lambda _: "must be a mapping of keys to values",
    "literal_error": lambda details: f"must be {details['ctx']['expected']}".replace("'", ""),
    "string_too_short": lambda _: "must not be empty",
    "too_short": lambda _: "must not be empty",
    "greater_than_equal": lambda details: f"must be at least {details['ctx']['ge']}",
    "less_than_equal": lambda details: f"must be at most {details['ctx']['le']}",
}


def _message(details: ErrorDetails) -> str:
    told = _MESSAGES.get(details["type"])
    return told(details) if told else details["msg"]


def _unknown(place: document.Path) -> str:
    known = list(_keys_at(place[:-1]))
    close = difflib.get_close_matches(str(place[-1]), known, n=1, cutoff=0.6)
    if close:
        return f"is unknown; did you mean {close[0]}?"
    return f"is unknown; known here: {', '.join(known)}"


def _keys_at(place: document.Path) -> Iterator[str]:
    """The keys that a section knows, found by walking the models."""
    model: type[BaseModel] = Settings
    for key in place:
        if isinstance(key, str):
            model = next(_models_in(model.model_fields[key].annotation))
    yield from model.model_fields


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif typing.get_origin(annotation) in (tuple, typing.Union, types.UnionType):
        for argument in typing.get_args(annotation):
            yield from _models_in(argument)
