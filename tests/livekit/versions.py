"""The Python of guarded workers: this one, with the newest livekit-agents, and one with the oldest.

One rule: the tests are the same.  The oldest needs an environment of its own, some 200 MB, so it is for
``make soak``; :data:`oldest.txt` pins what is in it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from agent_guard.install import OLDEST_SUPPORTED
from tests.package import call
from tests.scale import SOAK

NEWEST, OLDEST = "newest", "oldest"
VERSIONS = [NEWEST, *([pytest.param(OLDEST, marks=pytest.mark.soak)] if SOAK else [])]
"""For ``params`` of a fixture."""

PINNED = Path(__file__).with_name("oldest.txt")


def python_with(version: str, factory: pytest.TempPathFactory) -> str:
    """The interpreter; its environment is made once in a run."""
    if version == NEWEST:
        return sys.executable
    folder = factory.getbasetemp() / f"livekit-agents-{OLDEST_SUPPORTED}"
    python = folder / "bin/python"
    if not python.exists():
        call([sys.executable, "-m", "venv", folder], factory.getbasetemp())
        pip: list[str | Path] = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        call([*pip, "--constraint", PINNED, f"livekit-agents=={OLDEST_SUPPORTED}"], folder)
    return str(python)
