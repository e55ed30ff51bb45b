"""Durations and sizes: a number and a unit, never a bare number that each reader takes for another."""

from __future__ import annotations

import re
from collections.abc import Mapping

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_BYTES = {
    "B": 1,
    "KB": 1_000,
    "MB": 1_000**2,
    "GB": 1_000**3,
    "TB": 1_000**4,
    "KiB": 1_024,
    "MiB": 1_024**2,
    "GiB": 1_024**3,
    "TiB": 1_024**4,
}

# As many digits as anybody means: a longer number is a mistake, or an attack.
_QUANTITY = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?) ?([A-Za-z]+)", re.ASCII)

DURATION_HELP = "must be a duration such as 500ms, 2s, 5m, 1h or 30d"
SIZE_HELP = "must be a size such as 512KiB, 10MiB or 2GiB"


def _pattern(units: dict[str, float] | dict[str, int]) -> str:
    return f"^[0-9]{{1,12}}(\\.[0-9]{{1,9}})? ?({'|'.join(units)})$"


DURATION_PATTERN = _pattern(_SECONDS)
SIZE_PATTERN = _pattern(_BYTES)
"""For the JSON Schema: what editors are to accept."""


def parse_duration(value: object) -> float:
    """Seconds."""
    return _parse(value, _SECONDS, DURATION_HELP)


def parse_size(value: object) -> int:
    """Bytes."""
    return round(_parse(value, _BYTES, SIZE_HELP))


def spell_duration(seconds: float) -> str:
    """The shortest way to write it down, in the largest unit that keeps it whole."""
    return _spell(seconds, _SECONDS)


def spell_size(count: int) -> str:
    return _spell(count, {unit: size for unit, size in _BYTES.items() if "i" in unit or unit == "B"})


def _spell(value: float, units: Mapping[str, float]) -> str:
    if value == 0:
        return "0"
    for unit, size in reversed(list(units.items())):
        number = round(value / size, 9)
        if number >= 1 and number == int(number):
            return f"{int(number)}{unit}"
    unit, size = next(iter(units.items()))
    return f"{value / size:.9f}".rstrip("0").rstrip(".") + unit


def _parse(value: object, units: dict[str, float] | dict[str, int], help_text: str) -> float:
    if isinstance(value, int | float) and value == 0 and not isinstance(value, bool):
        return 0.0  # nothing is nothing, in any unit
    if not isinstance(value, str):
        raise ValueError(help_text)
    if value == "0":
        return 0.0
    match = _QUANTITY.fullmatch(value)
    if match is None or match[2] not in units:
        raise ValueError(help_text)
    return float(match[1]) * units[match[2]]
