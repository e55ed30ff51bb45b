"""Taking secrets out of text that is to leave this machine.

One rule: what is known to be secret goes wherever it stands, and what is named like a secret goes unseen;
rather too much is taken out than too little.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from supervisor.config import Settings

REMOVED = "[removed]"

_NAME = r"(?:secret|token|passw|passphrase|credential|api_?key|private_?key|access_?key|auth|cookie|dsn)"
_SECRET_NAME = re.compile(_NAME, re.IGNORECASE)
_ASSIGNED = re.compile(
    rf"([\w.-]*{_NAME}[\w.-]*[\"']?\s*[:=]\s*)(\"(?:[^\"\\\n]|\\.)*\"|'[^'\n]*'|(?![\"'\[{{|>&])[^\s,;}}\]]+)",
    re.IGNORECASE,
)
_SHAPES = (
    re.compile(r"eyJ[\w-]{5,}\.[\w-]{5,}\.[\w-]*"),  # a JSON web token
    re.compile(r"(?i)\b(?:bearer|basic)\s+[\w.~+/=-]{8,}"),
    re.compile(r"\b(?:sk|pk|rk|ghp|gho|xox[abp])[-_][\w-]{12,}"),
)
_IN_URL = re.compile(r"(://[^\s/@:]*:)[^\s/@]+(@)")
_SHORTEST = 4
"""Replacing less would tear words apart; what is so short is no secret anyhow."""


class Redactor:
    """Knows the secrets of one installation."""

    def __init__(self, values: Iterable[str]) -> None:
        parts = {line.strip() for value in values for line in [value, *value.splitlines()]}
        # The longest first: one secret may be the beginning of another.
        known = sorted((p for p in parts if len(p) >= _SHORTEST), key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    def clean(self, text: str) -> str:
        if self._known is not None:
            text = self._known.sub(REMOVED, text)
        for shape in _SHAPES:
            text = shape.sub(REMOVED, text)
        text = _IN_URL.sub(rf"\1{REMOVED}\2", text)
        return _ASSIGNED.sub(rf"\1{REMOVED}", text)


def is_secret(name: str) -> bool:
    return _SECRET_NAME.search(name) is not None


def secrets_of(settings: Settings | None, environ: Mapping[str, str]) -> Iterator[str]:
    """All that a configuration and an environment are known to keep to themselves."""
    yield from (value for name, value in environ.items() if is_secret(name))
    if settings is None:
        return
    livekit = settings.livekit
    for secret in (livekit.api_secret, livekit.webhook_api_secret):
        if secret is not None:
            yield secret.get_secret_value()
    for agent in settings.agents:
        yield from (value for name, value in agent.environment.items() if is_secret(name))


def secrets_in_yaml(text: str) -> list[str] | None:
    """What stands under a key that is named like a secret; None when the text is no YAML."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError):
        return None
    return list(_under_secret_names(node, secret=False)) if node is not None else []


def _under_secret_names(node: Node, *, secret: bool, depth: int = 0) -> Iterator[str]:
    if depth > 30:
        return
    if isinstance(node, ScalarNode):
        if secret:
            yield str(node.value)
    elif isinstance(node, SequenceNode):
        for item in node.value:
            yield from _under_secret_names(item, secret=secret, depth=depth + 1)
    elif isinstance(node, MappingNode):
        for key, value in node.value:
            named = secret or (isinstance(key, ScalarNode) and is_secret(key.value))
            yield from _under_secret_names(value, secret=named, depth=depth + 1)
