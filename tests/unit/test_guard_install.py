"""What of livekit-agents the guard takes hold of is there; without it no worker starts."""

from __future__ import annotations

import types

import pytest
from livekit.agents import AgentServer, AgentSession

from agent_guard import install
from agent_guard.launcher import find_server
from agent_guard.settings import GuardError, GuardSettings

SETTINGS = GuardSettings(
    agent_id="a",
    socket="/nowhere",
    instance="i",
    agent_name=None,
    dev=False,
    human_return_grace=1,
    heartbeat_interval=1,
)


def test_this_livekit_agents_has_all_that_the_guard_needs() -> None:
    assert install.missing() == []
    assert all(hasattr(AgentServer(), name) for name in install._NEEDED_ON_SERVER)


@pytest.mark.parametrize(
    ("kind", "name"), [(AgentServer, "_run_ws"), (AgentServer, "rtc_session"), (AgentSession, "_close_soon")]
)
def test_a_renamed_method_keeps_the_worker_from_starting(
    kind: type, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = AgentServer.run
    monkeypatch.delattr(kind, name)
    with pytest.raises(GuardError, match=name):
        install.install(SETTINGS)
    assert AgentServer.run is before


def test_the_reason_names_the_oldest_version_that_would_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "missing", lambda: ["JobRequest.reject(terminate=)"])
    with pytest.raises(GuardError, match=r"has no JobRequest.reject\(terminate=\); 1\.3\.8 is the oldest"):
        install.install(SETTINGS)


def test_a_renamed_parameter_keeps_the_worker_from_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    def renamed(self: AgentServer, function: object = None, *, name: str = "") -> None: ...

    monkeypatch.setattr(install, "_NEEDED_PARAMETERS", ((renamed, ("agent_name",)),))
    with pytest.raises(GuardError, match="agent_name="):
        install.install(SETTINGS)


def test_a_server_is_found_as_livekit_finds_it() -> None:
    module, first, preferred = types.ModuleType("script"), AgentServer(), AgentServer()
    assert find_server(module, AgentServer) is None
    vars(module).update(a_first=first, z_last=AgentServer())
    assert find_server(module, AgentServer) is first
    vars(module).update(server=preferred)
    assert find_server(module, AgentServer) is preferred
