"""The shipped voice agent with a load of nothing and one idle process: a busy machine must not matter."""

from __future__ import annotations

import math
import sys
from pathlib import Path

from livekit.agents import AgentServer

sys.path.append(str(Path(__file__).resolve().parents[3] / "agent"))

from voice import server as server


def no_load(_server: AgentServer) -> float:
    return 0.0


def steady(server: AgentServer) -> None:
    """Without a threshold: with one, an idle worker says no to the second of two jobs that come at once."""
    server.load_fnc = no_load
    server.update_options(num_idle_processes=1, load_threshold=math.inf)


steady(server)
