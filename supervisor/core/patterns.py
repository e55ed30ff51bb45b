"""Shell patterns for the names of rooms and agents, as configuration has them."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase


def matches_any(text: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(text, pattern) for pattern in patterns)


def is_ignored(names: Iterable[str | None], patterns: tuple[str, ...]) -> bool:
    """``names``: an agent's name and identity, as far as they are known."""
    return any(name and matches_any(name, patterns) for name in names)
