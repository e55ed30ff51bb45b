"""An address to listen on, written ``HOST:PORT``; IPv6 as ``[::1]:PORT``."""

from __future__ import annotations

import re
from dataclasses import dataclass

_FORM = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):(?P<port>[0-9]{1,5})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Address:
    host: str
    """Without brackets."""
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self}"

    @classmethod
    def parse(cls, text: str) -> Address:
        match = _FORM.fullmatch(text)
        if match is None or not 0 < int(match["port"]) < 65_536:
            raise ValueError("must be HOST:PORT, for example 127.0.0.1:9105")
        return cls(match["host"].strip("[]"), int(match["port"]))
