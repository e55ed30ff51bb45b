"""What a worker is told through its environment, and what it makes of nonsense."""

from __future__ import annotations

import json

import pytest

from agent_guard.settings import GuardError, GuardSettings

ENVIRON = {"LIVEKIT_SUPERVISOR_AGENT_ID": "a", "LIVEKIT_SUPERVISOR_SOCKET": "/run/guard.sock"}


def _settings(**guard: object) -> GuardSettings:
    return GuardSettings.from_environ({**ENVIRON, "LIVEKIT_SUPERVISOR_GUARD": json.dumps(guard)})


def test_defaults() -> None:
    settings = GuardSettings.from_environ(ENVIRON)
    assert settings.agent_name is None
    assert not settings.dev
    assert (settings.human_return_grace, settings.heartbeat_interval) == (15.0, 2.0)


def test_an_empty_name_is_a_name_to_force() -> None:
    assert _settings(agent_name="").agent_name == ""
    assert _settings(agent_name=None).agent_name is None


@pytest.mark.parametrize("missing", sorted(ENVIRON))
def test_what_is_missing_is_named(missing: str) -> None:
    with pytest.raises(GuardError, match=missing):
        GuardSettings.from_environ({k: v for k, v in ENVIRON.items() if k != missing})


@pytest.mark.parametrize("text", ["nonsense", "[]", '{"agent_name": 1}', '{"heartbeat_interval": "2s"}'])
def test_malformed_json_is_an_error(text: str) -> None:
    with pytest.raises(GuardError, match="LIVEKIT_SUPERVISOR_GUARD"):
        GuardSettings.from_environ({**ENVIRON, "LIVEKIT_SUPERVISOR_GUARD": text})
