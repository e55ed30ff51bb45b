"""What the guard of a worker tells of it."""

from __future__ import annotations

from unittest.mock import Mock

import pytest
from livekit.agents import AgentServer

from agent_guard.messages import Heartbeat
from agent_guard.worker import Options, WorkerGuard
from tests.unit.test_guard_install import SETTINGS


async def test_a_beat_tells_that_livekit_drains(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it does on SIGTERM, of which nobody else would know when it came from somebody else."""
    server = AgentServer()
    guard = WorkerGuard(server, SETTINGS, Options())
    sent = Mock()
    monkeypatch.setattr(guard._connection, "send", sent)
    guard._send_heartbeat(0.0)
    monkeypatch.setattr(server, "_draining", True)
    guard._send_heartbeat(0.5)
    assert [call.args[0] for call in sent.call_args_list] == [
        Heartbeat(jobs=0, late=0.0),
        Heartbeat(jobs=0, late=0.5, draining=True),
    ]
