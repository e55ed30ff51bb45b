"""An address to listen on, written ``HOST:PORT``; IPv6 as ``[::1]:PORT``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

_FORM = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):(?P<port>[0-9]{1,5})", re.ASCII)

_Host = IPv4Address | IPv6Address | str


def _is_all_of(one: _Host, other: _Host) -> bool:
    """``0.0.0.0`` and ``::`` are all addresses of their kind; a name is one of IPv4, as far as is known."""
    if isinstance(one, str) or not one.is_unspecified:
        return False
    return one.version == (4 if isinstance(other, str) else other.version)


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

    def overlaps(self, other: Address) -> bool:
        """Whether one keeps the other from being listened on; no name is looked up for it."""
        return self.port == other.port and (self._covers(other) or other._covers(self))

    def _covers(self, other: Address) -> bool:
        return any(one == each or _is_all_of(one, each) for one in self._hosts() for each in other._hosts())

    def _hosts(self) -> tuple[_Host, ...]:
        if self.host.lower() == "localhost":
            return IPv4Address("127.0.0.1"), IPv6Address("::1")
        try:
            return (ip_address(self.host),)
        except ValueError:
            return (self.host.lower(),)

    @classmethod
    def parse(cls, text: str) -> Address:
        match = _FORM.fullmatch(text)
        if match is None or not 0 < int(match["port"]) < 65_536:
            raise ValueError("must be HOST:PORT, for example 127.0.0.1:9105")
        return cls(match["host"].strip("[]"), int(match["port"]))
