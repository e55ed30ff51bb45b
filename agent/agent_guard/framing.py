"""One JSON object per line.

One rule: what is not a whole, well-formed object of bounded size raises; nothing is guessed or repaired.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

MAX_LINE = 64 * 1024
"""With its line end."""


class FramingError(Exception):
    """The bytes are no message of ours; the connection cannot go on."""


def encode(message: Mapping[str, object]) -> bytes:
    line = json.dumps(message, separators=(",", ":"), allow_nan=False).encode() + b"\n"
    if len(line) > MAX_LINE:
        raise FramingError(f"message of {len(line)} bytes")
    return line


class Decoder:
    """Bytes in as they come, objects out as they become whole."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[dict[str, object]]:
        *lines, rest = data.split(b"\n")
        if lines:
            lines[0] = bytes(self._rest + lines[0])
            self._rest.clear()
        self._rest += rest  # grows in place: a line that comes byte by byte is not copied for each
        if len(self._rest) >= MAX_LINE:
            raise FramingError("line too long")
        return [_decode(line) for line in lines]


def _decode(line: bytes) -> dict[str, object]:
    if len(line) >= MAX_LINE:
        raise FramingError("line too long")
    try:
        message = json.loads(line.decode())
    except (ValueError, RecursionError) as error:
        raise FramingError(f"not JSON: {error}") from None
    if not isinstance(message, dict):
        raise FramingError("not a JSON object")
    return message
