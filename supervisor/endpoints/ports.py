"""What the endpoints ask of the daemon.

The rule: an endpoint translates between a wire and one of these calls; it decides nothing and keeps
nothing that matters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from supervisor.events import WebhookOutcome

Document = dict[str, object]
"""A JSON object as the outside interface describes it."""


class Views(Protocol):
    """What is so at this moment, from memory: nobody waits for LiveKit."""

    def status(self) -> Document: ...

    def rooms(self) -> Document: ...

    async def conflicts(self, since: float | None) -> Document:
        """Those resolved since then (Unix seconds)."""
        ...

    def liveness(self) -> tuple[bool, str]:
        """Do its loops turn, and if not, which are stuck?  Whatever LiveKit and the agents do."""
        ...

    def readiness(self) -> tuple[bool, str]:
        """Is everything as wanted, and if not, what is missing?"""
        ...


class WebhookSink(Protocol):
    """Where the body of a webhook goes."""

    def receive(self, body: bytes, authorization: str | None) -> WebhookOutcome:
        """Judge it and wake whom it concerns; returns at once."""
        ...


class Scrape(Protocol):
    """What ``/metrics`` answers: body and content type for an ``Accept`` header."""

    def __call__(self, accept: str) -> tuple[bytes, str]: ...


class CommandError(Exception):
    """A command that was not carried out; the message is for the operator."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code


class Commands(Protocol):
    """What an operator may have the daemon do."""

    async def run(self, command: str, arguments: Mapping[str, object]) -> Document:
        """Raises :class:`CommandError`.  Goes on when the one who asked has hung up."""
        ...
