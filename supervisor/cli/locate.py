"""Where the daemon's socket and logs are: just enough of the configuration to find them.

One rule: looking at a running daemon needs neither a valid configuration nor the daemon's secrets in the
environment.  Only what is wrong with the file as a whole, or with its paths, stands in the way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from supervisor.cli.errors import CliError, ExitCode
from supervisor.cli.references import Reference
from supervisor.cli.text import plain
from supervisor.config import PathSettings
from supervisor.config.document import Document, parse
from supervisor.config.load import MAX_BYTES
from supervisor.config.types import Surroundings


@dataclass(frozen=True, slots=True)
class Installation:
    file: Path
    state: Path
    runtime: Path
    logs: Path
    agents: tuple[Reference, ...]

    @property
    def control_socket(self) -> Path:
        return self.runtime / "control.sock"


def locate(file: Path, environ: Mapping[str, str]) -> Installation:
    document = parse(_read(file), environ)
    data = document.data
    whole = [(line, message) for path, line, message in document.problems if not path]
    if not isinstance(data, dict):
        problems = whole or [(None, "is not a mapping of keys to values")]
        raise CliError(
            "\n".join(_problem(file, line, "", message) for line, message in problems), ExitCode.USAGE
        )
    paths = _paths(file, document, data.get("paths"), environ)
    return Installation(file, paths.state, paths.runtime, paths.logs, _agents(data.get("agents")))


def _read(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_BYTES + 1)
        if len(content) <= MAX_BYTES:
            return content.decode("utf-8-sig")
        message = "is larger than 1 MiB"
    except FileNotFoundError:
        message = "no such configuration file; name one with --config FILE or LIVEKIT_SUPERVISOR_CONFIG"
    except UnicodeDecodeError:
        message = "is not UTF-8"
    except OSError as error:
        message = str(error.strerror)
    raise CliError(_problem(file, None, "", message), ExitCode.USAGE)


def _paths(file: Path, document: Document, given: object, environ: Mapping[str, str]) -> PathSettings:
    for path, line, message in document.problems:
        if path[:1] == ("paths",):
            raise CliError(_problem(file, line, ".".join(map(str, path)), message), ExitCode.USAGE)
    known = (
        {k: v for k, v in given.items() if k in PathSettings.model_fields} if isinstance(given, dict) else {}
    )
    try:
        return PathSettings.model_validate(known, context=Surroundings(file.absolute().parent, environ))
    except ValidationError as error:
        lines = [
            _problem(file, document.line(place), ".".join(map(str, place)), _message(details))
            for details in error.errors(include_url=False, include_input=False)
            for place in [("paths", *details["loc"])]
        ]
        raise CliError("\n".join(lines), ExitCode.USAGE) from error


def _message(details: ErrorDetails) -> str:
    """pydantic puts a label before what our own validators say."""
    cause = details.get("ctx", {}).get("error")
    return str(cause or details["msg"])


def _agents(value: object) -> tuple[Reference, ...]:
    """Those that can be told; what is wrong with the others is ``check``'s to say."""
    entries = value if isinstance(value, tuple) else ()
    return tuple(
        Reference(str(entry["id"]), str(entry.get("name") or ""))
        for entry in entries
        if isinstance(entry, dict) and entry.get("id")
    )


def _problem(file: Path, line: int | None, key: str, message: str) -> str:
    place = str(file) if line is None else f"{file}:{line}"
    return f"{place}: {key}: {plain(message)}" if key else f"{place}: {plain(message)}"
