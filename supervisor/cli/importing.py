"""``import``: a ``config.yaml`` from the pieces of an old installation.

One rule: ``check`` accepts what is written, and what could not be told stands in it as a comment.  It begins
by observing: nothing is touched, neither rooms nor second processes, until two lines are changed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from supervisor.cli.errors import CliError, ExitCode
from supervisor.cli.importing_env import read_variables
from supervisor.cli.importing_pieces import Pieces, Worker
from supervisor.cli.importing_render import render
from supervisor.cli.importing_shell import read_script
from supervisor.cli.importing_units import read_pm2, read_supervisord, read_systemd

SECRET_FILE = "livekit-api-secret"
_MOST_BYTES = 1_048_576
_LOOKED_FOR = ("*.service", "*.env", ".env", "*.sh", "*.ini", "*.conf", "ecosystem.config.*", "process.y*ml")


@dataclass(frozen=True, slots=True)
class Imported:
    config: str
    secret: str | None
    """LiveKit's, for a file of its own; None where it is not known or not to be written."""
    remarks: tuple[str, ...]


def import_files(
    paths: Iterable[Path], environ: Mapping[str, str], *, output: Path | None, observe: bool
) -> Imported:
    """Raises CliError when there is nothing to import."""
    pieces = read(paths, environ)
    if not pieces.workers:
        told = "\n  ".join(pieces.remarks) or "none of the files starts one"
        raise CliError(f"no LiveKit worker was found:\n  {told}", ExitCode.USAGE)
    secret = pieces.variables.get("LIVEKIT_API_SECRET") or None
    folder = output.absolute().parent if output is not None else None
    text = render(pieces, folder, secret_file=SECRET_FILE if secret and output else None, observe=observe)
    return Imported(text, secret if output is not None else None, tuple(pieces.remarks))


def read(paths: Iterable[Path], environ: Mapping[str, str]) -> Pieces:
    home = environ.get("HOME", "")
    pieces = Pieces(home=Path(home) if home.startswith("/") else None)
    for path in dict.fromkeys(_files(paths)):
        pieces.workers += _workers(path.absolute(), pieces)
    for worker in pieces.workers:
        pieces.add_variables(
            {n: v for n, v in worker.env.items() if n.startswith("LIVEKIT_")}, Path(worker.source)
        )
    pieces.workers = list(_without_repetition(pieces))
    return pieces


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if _is_folder(path):
            yield from sorted({file for pattern in _LOOKED_FOR for file in path.glob(pattern)})
        else:
            yield path


def _is_folder(path: Path) -> bool:
    """Raises CliError for what is not there, or cannot be looked at by this user."""
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
        if is_folder:
            os.scandir(path).close()
    except (FileNotFoundError, NotADirectoryError):
        raise CliError(f"{path}: there is no such file", ExitCode.USAGE) from None
    except OSError as error:
        raise CliError(f"{path}: cannot be looked at: {error.strerror}", ExitCode.USAGE) from error
    return is_folder


def _workers(path: Path, pieces: Pieces) -> list[Worker]:
    name = path.name
    if path.suffix == ".env" or name.startswith(".env") or name == "env":
        pieces.add_variables(read_variables(path, pieces), path)
        pieces.variable_files.append(path)
        return []
    if path.suffix == ".sh":
        return read_script(path, pieces)
    text = _text(path, pieces)
    if path.suffix == ".service":
        return read_systemd(path, text, pieces)
    if name.startswith(("ecosystem.config.", "pm2.")) or path.suffix in (
        ".js",
        ".cjs",
        ".json",
        ".yml",
        ".yaml",
    ):
        return read_pm2(path, text, pieces)
    if path.suffix in (".ini", ".conf") and "[program:" in text:
        return read_supervisord(path, text, pieces)
    if text.startswith("#!"):
        return read_script(path, pieces)
    pieces.remarks.append(
        f"{path}: not read: it is none of .env, .service, .sh, supervisord's .ini or PM2's file"
    )
    return []


def _text(path: Path, pieces: Pieces) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_MOST_BYTES).decode("utf-8", "replace")
    except OSError as error:
        pieces.remarks.append(f"{path}: cannot be read: {error.strerror}")
        return ""


def _without_repetition(pieces: Pieces) -> Iterator[Worker]:
    """A unit that runs a start script that is named, too, is one worker."""
    seen: dict[tuple[object, ...], Worker] = {}
    for worker in pieces.workers:
        key = (worker.script, worker.command, worker.args, tuple(sorted(worker.env.items())))
        if key in seen:
            seen[key].remarks.append(f"started by {worker.source}, too")
            continue
        seen[key] = worker
        yield worker


# --- writing --------------------------------------------------------------------------------------------


def write(output: Path, imported: Imported) -> list[Path]:
    """The configuration, and the secret beside it; both for us alone, and never over what is there.

    The same secret may be there already: from an import before, to observe.
    """
    secret = output.absolute().parent / SECRET_FILE
    texts = {output: imported.config, secret: imported.secret}
    wanted = {path: text if text.endswith("\n") else f"{text}\n" for path, text in texts.items() if text}
    if secret in wanted and _holds(secret, wanted[secret]):
        del wanted[secret]
    for path in wanted:
        if os.path.lexists(path):
            raise CliError(f"{path} is there already, and was not changed", ExitCode.USAGE)
    for path, text in wanted.items():
        _create(path, text)
    return list(wanted)


def _holds(path: Path, text: str) -> bool:
    try:
        return not path.is_symlink() and path.is_file() and path.read_text(encoding="utf-8") == text
    except (OSError, UnicodeDecodeError):
        return False


def _create(path: Path, text: str) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise CliError(f"{path}: cannot be written: {error.strerror}", ExitCode.USAGE) from error
