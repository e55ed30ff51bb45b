"""The guard inside a LiveKit worker: it asks the supervisor before a job is accepted, and speaks for the job.

One rule: a script needs nothing from here.  What is exported is for scripts that want more: code to run
when the conversation's state is reset because a human came back.
"""

from __future__ import annotations

from agent_guard.hooks import on_reset

__version__ = "1.0.0"

__all__ = ["__version__", "on_reset"]
