"""What an expression selects and which labels it speaks of; whether it is PromQL, Prometheus itself says."""

from __future__ import annotations

import re
from dataclasses import dataclass

_LABEL_LIST = re.compile(r"\b(by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_RANGE = re.compile(r"\[([^\]]*)\]")
_SELECTOR = re.compile(r"(?<![\w.:\"])([a-zA-Z_:][\w:]*)(\s*\{[^}]*\})?(\s*\()?")
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
_WORDS = frozenset({"and", "or", "unless", "bool", "offset", "inf", "nan"})


@dataclass(frozen=True)
class Selector:
    metric: str
    matchers: tuple[tuple[str, str, str], ...]

    def __str__(self) -> str:
        told = ",".join(f'{name}{operator}"{value}"' for name, operator, value in self.matchers)
        return f"{self.metric}{{{told}}}" if told else self.metric

    @property
    def labels(self) -> frozenset[str]:
        return frozenset(name for name, _, _ in self.matchers)


def selectors(expr: str) -> tuple[Selector, ...]:
    bare = _RANGE.sub("", _LABEL_LIST.sub("", expr))
    found = []
    for match in _SELECTOR.finditer(bare):
        name, braces, call = match.groups()
        if call is None and name.lower() not in _WORDS and not _inside_braces(bare, match.start()):
            found.append(Selector(name, tuple(_MATCHER.findall(braces or ""))))
    return tuple(found)


def grouped_labels(expr: str) -> frozenset[str]:
    """Every label in ``by``, ``without``, ``on`` and the like."""
    lists = (names for _, names in _LABEL_LIST.findall(expr))
    return frozenset(name.strip() for names in lists for name in names.split(",") if name.strip())


def result_labels(expr: str) -> frozenset[str] | None:
    """The labels that an aggregation leaves; None: whatever the series have."""
    kept = [names for word, names in _LABEL_LIST.findall(expr) if word == "by"]
    return frozenset(n.strip() for names in kept for n in names.split(",")) if kept else None


def ranges(expr: str) -> tuple[str, ...]:
    return tuple(_RANGE.findall(expr))


def _inside_braces(text: str, position: int) -> bool:
    return text.count("{", 0, position) > text.count("}", 0, position)
