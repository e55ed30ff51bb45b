"""Taking secrets out of text that is to leave this machine.

One rule: what is known to be secret goes wherever it stands, and what is named like a secret goes unseen;
rather too much is taken out than too little.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from supervisor.config.secret_names import END, WORD, is_secret

REMOVED = "[removed]"

_NAME = rf"[\w.-]*(?:{WORD}[\w.-]*|{END})"
_VALUE = r"(?:\"(?:[^\"\\\n]|\\.)*\"?|'[^'\n]*'?|(?![\"'\[{|>&])[^\s,;}\]]+)"
_AUTHORIZATION = re.compile(r"(authorization[\"']?[ \t]*[:=][ \t]*)[^\n]+", re.IGNORECASE)
_ASSIGNED = re.compile(rf"((?<![\w.-]){_NAME}[\"']?\s*[:=]\s*){_VALUE}", re.IGNORECASE)
_OPTION = re.compile(
    rf"((?<![\w.-])--{_NAME}(?:[\"']?\s*,\s*[\"']?|\s+(?:-\s+)?[\"']?))(?![-\[])[^\s,;}}\]\"']+",
    re.IGNORECASE,
)
"""Its value is the next word of a command line, or the next entry of a list."""

_SHAPES = (
    re.compile(r"eyJ[\w-]{5,}\.[\w-]{5,}\.[\w-]*"),  # a JSON web token
    re.compile(r"(?i)\b(?:bearer|basic)\s+[\w.~+/=-]{8,}"),
    re.compile(r"\b(?:sk|pk|rk|ghp|gho|xox[abp])[-_][\w-]{12,}"),
)
_IN_URL = re.compile(r"(://[^\s/@:]*:)[^\s/@]+(@)")
_SHORTEST = 4
"""Replacing less would tear words apart; what is so short is removed only where its place is known."""


class Redactor:
    """Knows the secrets of one installation, and the ``variables`` whose values are told to nobody."""

    def __init__(self, values: Iterable[str], variables: Iterable[str] = ()) -> None:
        parts = {line.strip() for value in values for line in [value, *value.splitlines()]}
        parts |= {json.dumps(part, ensure_ascii=ascii)[1:-1] for part in parts for ascii in (True, False)}
        # The longest first: one secret may be the beginning of another.
        known = sorted((p for p in parts if len(p) >= _SHORTEST), key=len, reverse=True)
        names = sorted({name for name in variables if name}, key=len, reverse=True)
        self._known = _any_of(known)
        self._given = re.compile(rf"((?<!\w)(?:{_any(names)})[\"']?\s*[:=]\s*){_VALUE}") if names else None

    def clean(self, text: str) -> str:
        if self._known is not None:
            text = self._known.sub(REMOVED, text)
        text = _AUTHORIZATION.sub(rf"\1{REMOVED}", text)
        for shape in _SHAPES:
            text = shape.sub(REMOVED, text)
        text = _IN_URL.sub(rf"\1{REMOVED}\2", text)
        for named in (_ASSIGNED, _OPTION, self._given):
            if named is not None:
                text = named.sub(rf"\1{REMOVED}", text)
        return text

    def clean_document(self, value: object) -> object:
        """The same for what becomes JSON, which stays JSON."""
        if isinstance(value, str):
            return self.clean(value)
        if isinstance(value, list | tuple):
            return [self.clean_document(item) for item in value]
        if isinstance(value, dict):
            return {self.clean(str(k)): self._clean_entry(str(k), v) for k, v in value.items()}
        return value

    def _clean_entry(self, name: str, value: object) -> object:
        return REMOVED if isinstance(value, str) and is_secret(name) else self.clean_document(value)


def _any_of(texts: Iterable[str]) -> re.Pattern[str] | None:
    pattern = _any(texts)
    return re.compile(pattern) if pattern else None


def _any(texts: Iterable[str]) -> str:
    return "|".join(map(re.escape, texts))
