"""``config.yaml`` turned into frozen, validated settings: all of it right, or every problem told at once."""

from supervisor.config.address import Address
from supervisor.config.load import load
from supervisor.config.problems import ConfigError, Problem
from supervisor.config.settings import (
    AgentSettings,
    HeartbeatSettings,
    HistorySettings,
    HttpSettings,
    LiveKitSettings,
    LogSettings,
    PathSettings,
    RestartSettings,
    RoomsSettings,
    Settings,
    StopSettings,
)

__all__ = [
    "Address",
    "AgentSettings",
    "ConfigError",
    "HeartbeatSettings",
    "HistorySettings",
    "HttpSettings",
    "LiveKitSettings",
    "LogSettings",
    "PathSettings",
    "Problem",
    "RestartSettings",
    "RoomsSettings",
    "Settings",
    "StopSettings",
    "load",
]
