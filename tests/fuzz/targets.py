"""The targets by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.fuzz.checks import Target
from tests.fuzz.config_file import config_file
from tests.fuzz.control_socket import control_socket
from tests.fuzz.guard_side import guard_side
from tests.fuzz.guard_socket import guard_socket
from tests.fuzz.webhook import webhook

TARGETS: Mapping[str, Target] = {
    "config": config_file,
    "webhook": webhook,
    "guard-socket": guard_socket,
    "guard-side": guard_side,
    "control-socket": control_socket,
}

CORPUS = Path(__file__).parent / "corpus"
"""A folder for each target: inputs to begin with, and those that once were a defect."""


def corpus(target: str) -> list[Path]:
    return sorted(path for path in (CORPUS / target).iterdir() if path.is_file())
