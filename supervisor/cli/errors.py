"""How a command ends.  One rule: the exit codes here are promised to scripts and never change meaning."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    FINE = 0
    WRONG = 1
    """Something is wrong now: with an agent, a room, or what the command was to bring about."""
    USAGE = 2
    """Bad usage or configuration."""
    NOT_RUNNING = 3
    """The daemon is needed, and not running or not answering."""
    TAKEN = 4
    """Another daemon holds the state."""


class CliError(Exception):
    """Ends the command: the message, as it is, to standard error; then the exit code."""

    def __init__(self, message: str, code: ExitCode) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
