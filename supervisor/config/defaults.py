"""Where files are kept when the configuration does not say.

One rule: two supervisors with different state directories never meet in a runtime directory by default.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from supervisor.config.types import Surroundings, absolute

NAME = "livekit-supervisor"
NO_HOME = "this user has no home directory to keep state in: set HOME, or paths.state"

_LONGEST_SOCKET = len("control.sock")
_SOCKET_LIMIT = 107
"""Bytes that the kernel takes for the path of a Unix socket."""


def paths(given: Mapping[str, Any], around: Surroundings) -> dict[str, Any]:
    """``given`` with what it leaves out: systemd's directories when it gives them, else the user's own."""
    found = {key: value for key, value in given.items() if value is not None or key not in _KEYS}
    own_state = isinstance(found.get("state"), str)
    if own_state:
        state = absolute(found["state"], around.folder)
    else:
        state = _systemd(around, "STATE_DIRECTORY") or _home(around, "XDG_STATE_HOME", ".local/state") / NAME
    runtime = _systemd(around, "RUNTIME_DIRECTORY") or (_beside(state) if own_state else _users(around))
    logs = _systemd(around, "LOGS_DIRECTORY") or state / "logs"
    return {"state": str(state), "runtime": str(runtime), "logs": str(logs), **found}


_KEYS = frozenset({"state", "runtime", "logs"})


def socket_fits(runtime: Path) -> bool:
    return len(os.fsencode(runtime)) + 1 + _LONGEST_SOCKET <= _SOCKET_LIMIT


def _systemd(around: Surroundings, variable: str) -> Path | None:
    """systemd gives a list; ours has one entry, and the first is the one for us."""
    first = around.environ.get(variable, "").split(":")[0]
    return Path(first) if first else None


def _home(around: Surroundings, variable: str, otherwise: str) -> Path:
    configured = around.environ.get(variable, "")
    if configured.startswith("/"):
        return Path(configured)
    return home(around.environ) / otherwise


def home(environ: Mapping[str, str]) -> Path:
    """Raises ValueError for a user without one."""
    try:
        return Path(environ.get("HOME") or Path.home())
    except RuntimeError:
        raise ValueError(NO_HOME) from None


def _users(around: Surroundings) -> Path:
    base = around.environ.get("XDG_RUNTIME_DIR", "")
    return Path(base) / NAME if base.startswith("/") else Path(f"/tmp/{NAME}-{os.getuid()}")


def _beside(state: Path) -> Path:
    """In the state directory, unless a socket's path would be too long there."""
    if socket_fits(state / "run"):
        return state / "run"
    digest = hashlib.sha256(os.fsencode(state)).hexdigest()[:8]
    return Path(f"/tmp/{NAME}-{os.getuid()}-{digest}")
