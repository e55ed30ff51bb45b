"""``${NAME}`` and ``${NAME:-default}``, filled in from the environment; ``$${`` is a plain ``${``."""

from __future__ import annotations

import re
from collections.abc import Mapping

_REFERENCE = re.compile(r"\$\$\{|\$\{(?P<inside>[^}]*)(?P<end>\}?)")
_INSIDE = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<default>:-.*)?", re.ASCII | re.DOTALL)


class VariableError(ValueError):
    """A reference that cannot be filled in."""


def has_reference(text: str) -> bool:
    return "${" in text


def fill_in(text: str, environ: Mapping[str, str]) -> str:
    """``text`` with its references replaced.  A default is used for a variable that is unset or empty."""
    return _REFERENCE.sub(lambda match: _value(match, environ), text)


def _value(match: re.Match[str], environ: Mapping[str, str]) -> str:
    if match["inside"] is None:
        return "${"
    inside = _INSIDE.fullmatch(match["inside"])
    if inside is None or not match["end"]:
        raise VariableError("write a variable as ${NAME} or ${NAME:-default}, and a plain ${ as $${")
    name, default = inside["name"], inside["default"]
    value = environ.get(name)
    if default is not None:
        return value or default.removeprefix(":-")
    if value is None:
        raise VariableError(f"the variable {name} is not set; a default is written ${{{name}:-default}}")
    return value
