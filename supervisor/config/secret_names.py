"""Which variables are secrets, as far as their names tell.

One rule: rather too many than too few.
"""

from __future__ import annotations

import re

from supervisor.config.settings import Settings

WORD = r"(?:secret|token|passw|passphrase|pwd|credential|(?:api|private|access)[_-]?key|auth|cookie|dsn)"
END = r"[_-](?:key|pass)"
_NAMED = re.compile(rf"{WORD}|{END}$", re.IGNORECASE)
_FOLDERS = frozenset({"PWD", "OLDPWD"})
"""Every shell's: named like passwords, and no secrets."""


def is_secret(name: str) -> bool:
    return name not in _FOLDERS and _NAMED.search(name) is not None


def told_openly(settings: Settings) -> frozenset[str]:
    """Without these nothing could be told apart, whatever variable holds them, too."""
    names = (name for agent in settings.agents for name in (agent.id, agent.name or ""))
    return frozenset({settings.livekit.url, *names})
