"""Which variables are secrets, as far as their names tell.

One rule: rather too many than too few.  ``supervisor/cli/redaction.py`` judges by the same words.
"""

from __future__ import annotations

import re

_WORD = r"(?:secret|token|passw|passphrase|pwd|credential|(?:api|private|access)[_-]?key|auth|cookie|dsn)"
_END = r"[_-](?:key|pass)"
_NAMED = re.compile(rf"{_WORD}|{_END}$", re.IGNORECASE)
_FOLDERS = frozenset({"PWD", "OLDPWD"})
"""Every shell's: named like passwords, and no secrets."""


def is_secret(name: str) -> bool:
    return name not in _FOLDERS and _NAMED.search(name) is not None
