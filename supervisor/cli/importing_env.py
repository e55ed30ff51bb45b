"""``.env`` files as they are found: what can be read is taken, the rest is a remark."""

from __future__ import annotations

from pathlib import Path

from supervisor.cli.importing_pieces import Pieces
from supervisor.config.env_file import EnvFile
from supervisor.config.problems import FileProblems


def read_variables(path: Path, pieces: Pieces) -> dict[str, str]:
    try:
        return dict(EnvFile.read(path).variables)
    except OSError as error:
        pieces.remarks.append(f"{path}: cannot be read: {error.strerror}")
    except FileProblems as error:
        pieces.remarks.append(f"{path}: not taken as env_file: {'; '.join(map(str, error.problems))}")
    return {}


def is_usable(path: Path) -> bool:
    try:
        EnvFile.read(path)
    except (OSError, FileProblems):
        return False
    return True
