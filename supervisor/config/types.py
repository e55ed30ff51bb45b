"""The kinds of value that settings have, each with the one message that says what it must be.

One rule: nothing is converted behind the reader's back: text is text, a number is a number.  Only what was
filled in from the environment takes the type of its place.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationInfo, WithJsonSchema

from supervisor.config.address import Address
from supervisor.config.document import Filled
from supervisor.config.env_file import EnvFile
from supervisor.config.units import DURATION_PATTERN, SIZE_PATTERN, parse_duration, parse_size

RESERVED_IDS = frozenset({"livekit-server"})
"""Processes of our own that are supervised alike."""

_AGENT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What validation needs from outside the file; pydantic's context."""

    folder: Path
    environ: Mapping[str, str] = field(repr=False)


def surroundings(info: ValidationInfo) -> Surroundings:
    assert isinstance(info.context, Surroundings)
    return info.context


# --- scalars ------------------------------------------------------------------------------------------


def _text(value: object) -> object:
    return str(value) if isinstance(value, Filled) else value


def _typed(value: object) -> object:
    return value.typed() if isinstance(value, Filled) else value


def _one_line(value: str) -> str:
    if any(ord(character) < 32 or ord(character) == 127 for character in value):
        raise ValueError("must not hold control characters")
    return value


Text = Annotated[str, BeforeValidator(_text)]
Line = Annotated[Text, AfterValidator(_one_line)]
Word = Annotated[Line, Field(min_length=1)]
Switch = Annotated[bool, BeforeValidator(_typed)]
Count = Annotated[int, BeforeValidator(_typed), Field(ge=0)]
Number = Annotated[float, BeforeValidator(_typed), Field(allow_inf_nan=False)]
Level = Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_text)]
LogFormat = Annotated[Literal["auto", "json", "console"], BeforeValidator(_text)]
RogueAction = Annotated[Literal["terminate", "report"], BeforeValidator(_text)]


def _longer_than_nothing(value: float) -> float:
    if value <= 0:
        raise ValueError("must be longer than 0")
    return value


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": DURATION_PATTERN}, {"enum": [0, "0"]}]}),
]
"""Seconds."""

PositiveDuration = Annotated[Duration, AfterValidator(_longer_than_nothing)]

Size = Annotated[
    int,
    BeforeValidator(parse_size),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": SIZE_PATTERN}, {"enum": [0, "0"]}]}),
]
"""Bytes."""

_SMALLEST_LOG = 4 * 1024
"""A block of most file systems: less is never given back, and a line may be as long."""


def _room_for_lines(value: int) -> int:
    if value < _SMALLEST_LOG:
        raise ValueError("must be at least 4KiB")
    return value


LogSize = Annotated[
    int,
    BeforeValidator(parse_size),
    AfterValidator(_room_for_lines),
    WithJsonSchema({"type": "string", "pattern": SIZE_PATTERN}),
]
"""Bytes: nothing is not a size that a log could be kept at."""

# --- what the outside is called -----------------------------------------------------------------------


def _agent_id(value: str) -> str:
    if _AGENT_ID.fullmatch(value) is None:
        raise ValueError(
            "names files, so it must be 1 to 128 letters, digits, '.', '_' or '-', not beginning with a sign"
        )
    if value in RESERVED_IDS:
        raise ValueError("is the name of a process of the supervisor's own")
    return value


def _address(value: object) -> Address:
    if not isinstance(value, str):
        raise ValueError("must be HOST:PORT, for example 127.0.0.1:9105")
    return Address.parse(value)


def _livekit_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("ws", "wss", "http", "https") and bool(parts.hostname)
        usable = usable and parts.port != 0 and "@" not in parts.netloc and not parts.query
    except ValueError:
        usable = False
    if not usable:
        raise ValueError(
            "must be LiveKit's address, such as wss://livekit.example.org or ws://127.0.0.1:7880"
        )
    return value.rstrip("/")


def _store(value: str) -> str:
    if value == "sqlite":
        return value
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("redis", "rediss") and bool(parts.hostname) and parts.port != 0
        usable = usable and re.fullmatch(r"/?[0-9]*", parts.path) is not None
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("must be sqlite or redis://HOST:PORT/DB")
    return value


AgentId = Annotated[Text, AfterValidator(_agent_id)]
ListenAddress = Annotated[Address, BeforeValidator(_address), WithJsonSchema({"type": "string"})]
LiveKitUrl = Annotated[Line, AfterValidator(_livekit_url)]
Store = Annotated[Line, AfterValidator(_store)]

# --- files --------------------------------------------------------------------------------------------


def absolute(text: str, folder: Path) -> Path:
    """Relative to ``folder``; links are kept, since a virtual environment's Python is one."""
    try:
        path = Path(text).expanduser()
    except RuntimeError:
        raise ValueError("begins with the home of a user that does not exist") from None
    return Path(os.path.abspath(folder / path))


def _path(value: object, info: ValidationInfo) -> Path:
    if not isinstance(value, str):
        raise ValueError("must be a path")
    if not value or "\0" in value:
        raise ValueError("must not be empty" if not value else "must not hold a NUL character")
    return absolute(value, surroundings(info).folder)


def _path_without(fault: Callable[[Path], str]) -> Callable[[object, ValidationInfo], Path]:
    """A path in which ``fault`` finds nothing to say; what was filled in is not quoted."""

    def validate(value: object, info: ValidationInfo) -> Path:
        path = _path(value, info)
        found = fault(path)
        if found:
            raise ValueError(found if isinstance(value, Filled) else f"{found}: {path}")
        return path

    return validate


def _file_fault(path: Path) -> str:
    mode = _mode(path)
    if isinstance(mode, OSError):
        return _absence("file", mode)
    if not stat.S_ISREG(mode):
        return "is not a file"
    return "" if os.access(path, os.R_OK) else "cannot be read by this user"


def _folder_fault(path: Path) -> str:
    mode = _mode(path)
    if isinstance(mode, OSError):
        return _absence("directory", mode)
    return "" if stat.S_ISDIR(mode) else "there is no such directory"


def _program_fault(path: Path) -> str:
    mode = _mode(path)
    executable = not isinstance(mode, OSError) and stat.S_ISREG(mode) and os.access(path, os.X_OK)
    return "" if executable else "is no executable file"


def _mode(path: Path) -> int | OSError:
    try:
        return path.stat().st_mode
    except OSError as error:
        return error


def _absence(what: str, error: OSError) -> str:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return f"there is no such {what}"
    return f"cannot be looked at by this user: {error.strerror}"


def _python(value: object, info: ValidationInfo) -> object:
    """A bare name is looked for on PATH when there is no such file."""
    if not isinstance(value, str) or not value or "/" in value:
        return value
    around = surroundings(info)
    found = shutil.which(value, path=around.environ.get("PATH", ""))
    return found if found and not (around.folder / value).exists() else value


def _env_file(value: object, info: ValidationInfo) -> EnvFile:
    path = _path_without(_file_fault)(value, info)
    try:
        return EnvFile.read(path)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None


_PATH_SCHEMA = WithJsonSchema({"type": "string"})

AnyPath = Annotated[Path, BeforeValidator(_path), _PATH_SCHEMA]
ReadableFile = Annotated[Path, BeforeValidator(_path_without(_file_fault)), _PATH_SCHEMA]
Folder = Annotated[Path, BeforeValidator(_path_without(_folder_fault)), _PATH_SCHEMA]
Python = Annotated[
    Path, BeforeValidator(_path_without(_program_fault)), BeforeValidator(_python), _PATH_SCHEMA
]
EnvironmentFile = Annotated[EnvFile, BeforeValidator(_env_file), _PATH_SCHEMA]

# --- secrets ------------------------------------------------------------------------------------------

_MAX_SECRET = 65_536


def _secret(value: object) -> object:
    if isinstance(value, str) and not value:
        raise ValueError("must not be empty")
    return _text(value)


def _read_secret(path: Path) -> str:
    """Its path is never told: it may be the secret itself, written in the wrong place."""
    fault = _file_fault(path)
    if fault:
        raise ValueError(fault)
    try:
        with path.open("rb") as file:
            secret = file.read(_MAX_SECRET).decode("utf-8").strip()
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8 text") from None
    if not secret:
        raise ValueError("is empty")
    return secret


def _secret_file(value: object, info: ValidationInfo) -> Path:
    path = _path(value, info)
    _read_secret(path)
    return path


def secret_from(value: object, info: ValidationInfo) -> str:
    """The secret in the file that ``value`` names; a stand-in where SecretFile will find fault with it."""
    try:
        return _read_secret(_path(value, info))
    except ValueError:
        return "unreadable"


Secret = Annotated[SecretStr, BeforeValidator(_secret)]
SecretFile = Annotated[Path, BeforeValidator(_secret_file), _PATH_SCHEMA]

# --- lists and mappings -------------------------------------------------------------------------------


def _no_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("must not hold a NUL character")
    return value


def _command(value: object, info: ValidationInfo) -> object:
    """A program with a ``/`` is a path, relative to the file; another is looked for on PATH, at its start."""
    if not isinstance(value, tuple) or not value or not isinstance(value[0], str):
        return value
    program = value[0]
    if "/" in program:
        return (str(_path_without(_program_fault)(program, info)), *value[1:])
    if shutil.which(program, path=surroundings(info).environ.get("PATH", "")) is None:
        raise ValueError("the program is not on PATH")
    return value


Argument = Annotated[Text, AfterValidator(_no_nul)]
Arguments = tuple[Argument, ...]
Patterns = tuple[Word, ...]
Command = Annotated[tuple[Argument, ...], BeforeValidator(_command), Field(min_length=1)]
Variables = dict[str, Argument]
