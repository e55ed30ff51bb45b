"""The environment variables that a worker is known by.

One rule: they are set once, before the process exists, and read where only the kernel writes.
"""

from __future__ import annotations

AGENT_ID = "LIVEKIT_SUPERVISOR_AGENT_ID"
"""Which agent, or helper, a process belongs to."""

STATE = "LIVEKIT_SUPERVISOR_STATE"
"""The state directory of the supervisor that it belongs to."""

LAUNCH = "LIVEKIT_SUPERVISOR_LAUNCH"
"""Names one start of one process, in everything that comes from it."""

LOCK_FD = "LIVEKIT_SUPERVISOR_LOCK_FD"
"""Number of the inherited descriptor that holds the lock."""

LIVEKIT_URL = "LIVEKIT_URL"
"""LiveKit's own."""
