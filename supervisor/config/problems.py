"""What is wrong with a configuration, for the person who has to mend it.

One rule: a problem quotes nothing that was filled in from the environment, and nothing of a secret's place.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    file: str
    line: int | None
    key: str
    """Where in the file, as ``agents[0].stop.drain``; empty when the file as a whole is meant."""
    message: str

    def __str__(self) -> str:
        """One line, whatever it quotes: what is not printable is escaped."""
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        told = f"{place}: {self.key}: {self.message}" if self.key else f"{place}: {self.message}"
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in told)


class ConfigError(Exception):
    """A configuration that cannot be used, with everything that is wrong with it."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


class FileProblems(ValueError):
    """Problems inside a file that the configuration names."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(f"{len(self.problems)} problems in another file")
