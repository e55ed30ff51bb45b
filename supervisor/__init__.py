"""Supervisor for LiveKit voice agents: one live agent per room, one process per agent ID.

The layers, from the inside out (``pyproject.toml`` holds the contracts that keep them)::

    core  <-  events, log, config  <-  process, livekit, store, endpoints, metrics
          <-  reconcile  <-  daemon  <-  cli
"""

__version__ = "0.1.0"
