"""What the daemon tells a worker through its environment.

One rule: it is read once per process, and what is missing or malformed is an error with the variable's
name; a worker that does not know who it is must not start.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

AGENT_ID = "LIVEKIT_SUPERVISOR_AGENT_ID"
STATE = "LIVEKIT_SUPERVISOR_STATE"
SOCKET = "LIVEKIT_SUPERVISOR_SOCKET"
LOCK_FD = "LIVEKIT_SUPERVISOR_LOCK_FD"
INSTANCE = "LIVEKIT_SUPERVISOR_INSTANCE"
GUARD = "LIVEKIT_SUPERVISOR_GUARD"


class GuardError(Exception):
    """The guard cannot do its work here; the text says why."""


@dataclass(frozen=True)
class GuardSettings:
    agent_id: str
    socket: str
    instance: str
    agent_name: str | None
    """LiveKit's agent name to force on the script; None leaves the script's own."""
    dev: bool
    human_return_grace: float
    heartbeat_interval: float
    """Both in seconds, and only until the daemon's ``welcome`` gives its own."""

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> GuardSettings:
        values = _json_object(environ)
        name = values.get("agent_name")
        if name is not None and not isinstance(name, str):
            raise GuardError(f"{GUARD}: agent_name must be a string or null")
        return cls(
            agent_id=_required(environ, AGENT_ID),
            socket=_required(environ, SOCKET),
            instance=environ.get(INSTANCE, ""),
            agent_name=name,
            dev=values.get("dev") is True,
            human_return_grace=_seconds(values, "human_return_grace", 15.0),
            heartbeat_interval=_seconds(values, "heartbeat_interval", 2.0),
        )


def _required(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name, "")
    if not value:
        raise GuardError(f"{name} is not set; workers are started by the supervisor")
    return value


def _json_object(environ: Mapping[str, str]) -> dict[str, object]:
    try:
        values = json.loads(environ.get(GUARD) or "{}")
    except ValueError as error:
        raise GuardError(f"{GUARD} is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise GuardError(f"{GUARD} must be a JSON object")
    return values


def _seconds(values: Mapping[str, object], name: str, default: float) -> float:
    value = values.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
        raise GuardError(f"{GUARD}: {name} must be a number of seconds")
    return float(value)
